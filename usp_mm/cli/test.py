"""Evaluate a checkpoint: `usp test CONFIG CHECKPOINT`, or `usp test FOLDER` for a model folder.

A classifier under noise, one level (usp robustness runs them all): `--image-noise 3`, `--latent-noise 400`.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from usp_mm.config.arguments import ToolParser, add_model_arguments, add_run_arguments, run_arguments
from usp_mm.fileio.addresses import local_file
from usp_mm.fileio.atomic import write_whole
from usp_mm.fileio.outputs import check_file

if TYPE_CHECKING:
    from mmengine.config import Config

#: What mmengine.dump writes.
METRIC_FILES = ('.json', '.yaml', '.yml', '.pkl')


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    add_model_arguments(parser, 'config', 'its checkpoint')
    parser.add_argument('--amp', action='store_true', help='autocast during the test')
    parser.add_argument('--fast', action='store_true', help='autocast and compiled blocks: other bits, same results')
    parser.add_argument('--tta', action='store_true', help='several scales and mirrored, as `tta_pipeline` of the config says')
    parser.add_argument('--out', help='write the metrics to this file, .json, .yaml or .pkl')
    parser.add_argument('--image-noise', type=int, metavar='SEVERITY', help="ImageNet-C's Gaussian noise, severity 1 to 5")
    parser.add_argument('--latent-noise', type=int, metavar='T', help="diffuse latents by T of DDPM's 1000 steps")
    add_run_arguments(parser)
    return parser.parse_args()


def augment(cfg: 'Config') -> None:
    """Test on every view of `tta_pipeline`, merged by `tta_model`, as mmseg's own tools/test.py does.

    Raises:
        ValueError: The config does not have them.
    """
    if not {'tta_model', 'tta_pipeline'} <= cfg.keys():
        raise ValueError('--tta: the config has no tta_model and tta_pipeline: of the models here, segmentors have them')
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.model = {**cfg.tta_model, 'module': cfg.model}


def write_metrics(path: Path, metrics: dict[str, Any]) -> None:
    """Write metrics in the format of the file's ending, whole or not at all."""
    import mmengine

    content = mmengine.dump(metrics, file_format=path.suffix[1:])
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as file:
        file.write(content if isinstance(content, bytes) else content.encode())


def main() -> None:
    args = parse_args()
    check_file(args.out, '--out', METRIC_FILES)
    from usp_mm.apis.folder_argument import take_folder

    take_folder(args)
    if not local_file(args.checkpoint).is_file():
        raise FileNotFoundError(f"no checkpoint at '{args.checkpoint}'")
    from usp_mm.analysis.noise import add_image_noise, add_latent_noise
    from usp_mm.engine.checks.data_folders import check_data_folders
    from usp_mm.engine.optim.amp import slow_bfloat16
    from usp_mm.engine.starting.build_errors import explain_arguments
    from usp_mm.engine.starting.build_runner import KeepMetrics, build_runner, load_run_config
    from usp_mm.engine.starting.fast import make_fast

    cfg = load_run_config(args.config, args.cfg_options, **run_arguments(args), initialises=False)
    if cfg.get('test_cfg') is None or not cfg.get('test_dataloader') or not cfg.get('test_evaluator'):
        raise ValueError(f"'{args.config}' has no test: set test_dataloader, test_cfg and test_evaluator")
    cfg.load_from = args.checkpoint
    if args.image_noise is not None:
        add_image_noise(cfg, args.image_noise)
    if args.latent_noise is not None:
        add_latent_noise(cfg, args.latent_noise)
    lines = make_fast(cfg, 'test') if args.fast else []
    if args.amp and (slow := slow_bfloat16()):
        lines.append(slow)
    if args.amp and 'denoiser' in cfg.model:
        cfg.model.sample_dtype = 'bfloat16'
    elif args.amp:
        cfg.test_cfg.fp16 = True
    if args.tta:
        augment(cfg)
    check_data_folders(cfg, 'test_dataloader')
    kept = KeepMetrics()
    with explain_arguments(cfg):
        runner = build_runner(cfg)
        for line in lines:
            runner.logger.info(line)
        runner.register_hook(kept)
        runner.test()
    if args.out and runner.rank == 0:
        assert kept.metrics is not None
        write_metrics(Path(args.out), kept.metrics)
