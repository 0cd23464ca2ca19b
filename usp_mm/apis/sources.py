"""Read config, weights and facts of a model from a folder, a checkpoint or another project's file, and build the model."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from torch import Tensor, nn

from usp_mm.checkpoints.kinds import KINDS, TARGETS
from usp_mm.checkpoints.model_config import Given, model_config
from usp_mm.checkpoints.official_names import from_official
from usp_mm.checkpoints.sources import family_of, read
from usp_mm.config.lookup import find_config
from usp_mm.engine.checks.config import merge_cfg_options
from usp_mm.engine.starting.build_errors import explain_arguments
from usp_mm.fileio.atomic import read_json
from usp_mm.fileio.checksums import check_sha256
from usp_mm.fileio.strict_loading import ITS_CONFIG, load_exactly
from usp_mm.fileio.weights import FOLDER_CONFIG, FOLDER_INFO, FOLDER_WEIGHTS, SAFE, read_checkpoint, read_trained, weights_in
from usp_mm.presets import VAES, lookup
from usp_mm.registry import MODELS
from usp_mm.vaes.record import codec_of, compare_vae, record_in, vae_record
from usp_mm.vaes.settings import fold_older_keys, vae_settings

from .config_data import check_types, parse_config
from .recorded import difference

CONFIG, WEIGHTS, INFO, STATS = FOLDER_CONFIG, FOLDER_WEIGHTS, FOLDER_INFO, 'vae_stats.json'
#: What of a repository is fetched: a model folder, or the transformer of a diffusers pipeline.
PATTERNS = [CONFIG, WEIGHTS, INFO, STATS, 'vae/*', 'vae.*', 'transformer/*', 'config.json', 'diffusion_pytorch_model*']
#: Name of the model folder in the work folder of a training.
OF_A_RUN = 'model'
#: MMEngine's name for the folder of a config, within one.
HERE = '{{ fileDirname }}'
#: Which weights of a generator -> beginnings of the names that are kept.
SETS = {'ema': ('denoiser_ema.module.',), 'model': ('denoiser.',), 'both': ('denoiser.', 'denoiser_ema.')}
#: Keys of the argument `vae`.
_VAE_KEYS = ('name', 'path', 'stats', 'dtype')
_HUB_ID = re.compile(r'[\w.-]+/[\w.-]+')
#: The only model whose VAE is the first stage of its backbone.
SEGMENTOR = 'USPSegmentor'
#: Keys that only concern training or speed.
_LEFT_OUT = ('init_cfg', 'repa', 'route', 'compile', 'compile_denoiser', 'cuda_graph')


@dataclass
class Source:
    """The parts from which a model is built.

    Attributes:
        cfg: The config as plain values; may have only `model`.
        weights: Weights of the whole model.
        where: Name of the source in error messages.
        file: File of the weights.
        classes: Names of the classes, in the order of their labels.
        vae: Record of the VAE with which the model was trained.
        facts: Further content of `run_info.json`.
        chosen: Whether the weights are already the requested ones.
        recorded: `model` of the config that the checkpoint holds, if another one was given.
        fix: What to do about weights that do not fit the config.
    """

    cfg: dict[str, Any]
    weights: dict[str, Tensor]
    where: str
    file: Path | None = None
    classes: tuple[str, ...] | None = None
    vae: Mapping[str, Any] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    chosen: bool = False
    recorded: dict[str, Any] | None = None
    fix: str = ITS_CONFIG


def read_model_folder(folder: Path, config: str | Path | Config | None = None) -> Source:
    """Read a model folder that `usp export` or `save_pretrained` wrote.

    Raises:
        FileNotFoundError: A file of the folder is missing.
        ValueError: A file of the folder is invalid, or the weights are not those whose hash `run_info.json` holds.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"'{folder}' is no model folder, it has no {name}: write one with `usp export`")
    if config is None:
        cfg = _placed(_recorded_config((folder / CONFIG).read_text(), folder / CONFIG), folder)
    else:
        cfg = _own_config(config)
    info = read_json(folder / INFO, 'export the model again') or {}
    classes, noted = info.get('classes'), info.get('weights_sha256')
    if noted is not None:
        check_sha256(folder / WEIGHTS, noted, INFO)
    weights = read_trained(folder / WEIGHTS, verify=noted is None).weights
    return Source(
        cfg, weights, str(folder), folder / WEIGHTS,
        tuple(map(str, classes)) if classes else None, info.get('vae'), info,
    )  # fmt: skip


def folder_of_run(folder: Path) -> Path:
    """The model folder in a training's work folder, which is logged; any other folder is returned unchanged."""
    inside = folder / OF_A_RUN
    if (folder / CONFIG).is_file() or not all((inside / name).is_file() for name in (CONFIG, WEIGHTS)):
        return folder
    MMLogger.get_current_instance().info(f"'{folder}' is the work folder of a training: its model folder '{inside}' is taken")
    return inside


def _placed(node: Any, folder: Path) -> Any:
    """Replace MMEngine's placeholder for the config's folder by `folder`."""
    if isinstance(node, dict):
        return {key: _placed(value, folder) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(_placed(value, folder) for value in node)
    return node.replace(HERE, str(folder)) if isinstance(node, str) else node


def read_file(path: Path, config: str | Path | Config | None, kind: str | None, given: Given, weights: str | None) -> Source:
    """Read a checkpoint of this package or of another project.

    Args:
        path: The checkpoint.
        config: Config for a checkpoint of this package; by default the one in it, or beside it in a model folder.
        kind: Kind of another project's file, a key of `usp_mm.checkpoints.KINDS`.
        given: Facts about another project's network that neither names nor shapes of its weights show.
        weights: Weights of a generator, 'ema' or 'model'.

    Raises:
        ValueError: There is no config, or the file has no model.
    """
    content = read_checkpoint(path, mmap=True)
    state = weights_in(content, path)
    if not any(name.startswith(('backbone.', 'denoiser.')) for name in state):
        if config is not None:
            raise ValueError(f"'{path}' is of another project, whose config follows from it: leave config out")
        return read_foreign(path, kind, given, weights)
    if kind is not None or given != Given(vae=given.vae):
        raise ValueError(f"'{path}' is a checkpoint of this package, whose config says it: leave kind, arch, num_classes out")
    meta = content.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    if config is None and path.suffix == SAFE and (path.parent / CONFIG).is_file():
        return read_model_folder(path.parent)
    if config is None and not isinstance(meta.get('cfg'), str):
        raise ValueError(f"'{path}' holds no config: give config=FILE, the one that it was trained with")
    cfg = _recorded_config(meta['cfg'], f'{path}: its config') if config is None else _own_config(config)
    classes = (meta.get('dataset_meta') or {}).get('classes')
    facts = {key: meta[key] for key in ('epoch', 'iter', 'experiment_name') if isinstance(meta.get(key), int | str)}
    facts |= _run_facts(path)
    found = Source(cfg, dict(state), str(path), path, tuple(map(str, classes)) if classes else None, record_in(content), facts)
    if config is not None and isinstance(meta.get('cfg'), str):
        with suppress(ValueError):  # it holds code, which is why another one is given
            found.recorded = _recorded_config(meta['cfg'], path).get('model')
    return found


def _recorded_config(text: str, where: str | Path) -> dict[str, Any]:
    """Parse the config that weights came with; its older keys are replaced without a warning."""
    cfg = parse_config(text, where)
    fold_older_keys(cfg, warn=False)
    return cfg


def _own_config(config: str | Path | Config) -> dict[str, Any]:
    """Load a user's own config, which may be executed."""
    cfg = config if isinstance(config, Config) else Config.fromfile(find_config(config))
    values = dict(cfg.to_dict())
    fold_older_keys(values)
    return values


def _run_facts(path: Path) -> dict[str, Any]:
    """The latest `run_info.json` of the run that wrote a checkpoint; empty if the checkpoint is not in its work folder."""
    found = sorted(path.parent.glob(f'*/{INFO}'))
    return {'training': read_json(found[-1])} if found else {}


def read_foreign(path: Path, kind: str | None, given: Given, weights: str | None) -> Source:
    """Read another project's file or a diffusers folder, with this package's names and a config for its shapes.

    Raises:
        ValueError: The file lacks a fact; the message names the argument that supplies it.
    """
    found = read(path, kind)
    noted = found.facts.get('num_heads')
    if noted is not None and given.arch is None:
        given = Given(dict(num_heads=noted), given.vae, given.num_classes)
    family = family_of(found)
    if weights is not None and family != 'denoiser':
        raise ValueError(f"weights='{weights}': '{path}' has one set of weights, leave it out")
    if kind is None and found.kind in ('dit', 'usp-dit') and not _has_args(path):
        sit = found.kind.replace('dit', 'sit')
        raise ValueError(
            f"'{path}': the names in it are those of DiT and of SiT, and nothing else in it decides which: give "
            f"kind='{found.kind}' or kind='{sit}'"
        )
    try:
        model = model_config(found, given)
    except ValueError as error:
        raise ValueError(f"'{path}': {error}") from error
    facts = dict(converted_from=found.kind, description=KINDS[found.kind].description, notes=list(found.notes))
    which = _choose(found.sets, weights, path) if family == 'denoiser' else next(iter(found.sets))
    entries = found.sets[which]
    if family == 'denoiser':
        state = {f'denoiser.{name}': entry.value for name, entry in entries.items()}
        facts['weights'] = which
    else:
        state = {name: entry.value for name, entry in from_official(entries).items()}
    return Source(
        dict(model=model, **_evaluation(model)), state, str(path), None if path.is_dir() else path, facts=facts, chosen=True
    )


def _has_args(path: Path) -> bool:
    """Whether the file stores the arguments of its training, which for SiT include a path_type."""
    return path.is_file() and read_checkpoint(path, mmap=True, verify=False).get('args') is not None


def _choose(sets: Mapping[str, Any], weights: str | None, path: Path) -> str:
    if weights == 'both':
        raise ValueError(f"weights='both' is of this package's checkpoints: convert '{path}' to {TARGETS['usp_mm']} first")
    if weights is None:
        return 'ema' if 'ema' in sets else next(iter(sets))
    if weights not in sets or len(sets) == 1:
        raise ValueError(f"weights='{weights}': '{path}' holds one set of weights: leave weights out")
    return weights


def _evaluation(model: Mapping[str, Any]) -> dict[str, Any]:
    """The evaluation crop of official classifiers: the shorter side is resized to 8/7 of the crop's, bicubic."""
    if model['type'] != 'USPClassifier':
        return {}
    size = model['backbone']['img_size']
    resize = dict(type='ResizeEdge', scale=round(size * 8 / 7), edge='short', backend='pillow', interpolation='bicubic')
    steps = [dict(type='LoadImage'), resize, dict(type='CenterCrop', crop_size=size), dict(type='PackInputs')]
    return dict(test_dataloader=dict(dataset=dict(type='ImageFolder', data_root='', pipeline=steps)))


# ---------------------------------------------------------------------- what is built of it


def prepare_source(
    source: Source, weights: str | None, vae: Any, load_vae: bool, cfg_options: Mapping[str, Any] | None
) -> None:
    """Set up the config's model for inference, and keep only the weights that it then has.

    Args:
        source: Source to change in place.
        weights: Weights of a generator, 'ema', 'model' or 'both'; by default the averaged ones.
        vae, load_vae: See `usp_mm.from_pretrained`.
        cfg_options: Settings to override.

    Raises:
        ValueError: The requested weights are missing, or a type is not this package's.
    """
    if 'model' not in source.cfg:
        raise ValueError(f"the config of '{source.where}' has no `model`")
    if cfg_options:
        scope = {key: source.cfg[key] for key in ('default_scope',) if key in source.cfg}
        cfg = Config({key: value for key, value in source.cfg.items() if key not in scope})  # a scope would import its library
        merge_cfg_options(cfg, dict(cfg_options))
        source.cfg = {**scope, **cfg.to_dict()}
    model = source.cfg['model'] = _without_training(source.cfg['model'])
    if source.recorded and (told := difference(_without_training(source.recorded), model)):
        source.fix = f'it was trained with {told}: leave the config out, and the one that the checkpoint holds is taken'
        MMLogger.get_current_instance().warning(f"the config applies, but '{source.where}': {source.fix}")
    check_types(model, source.where)
    source.weights = {name: x for name, x in source.weights.items() if not name.startswith('repa.')}
    if 'denoiser' in model:
        _select(source, model, None if source.chosen else weights)
    elif weights is not None:
        raise ValueError(f"weights='{weights}': '{source.where}' has one set of weights, leave it out")
    _set_vae(model, vae, load_vae, source.where)


def _without_training(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: _without_training(value) for key, value in node.items() if key not in _LEFT_OUT}
    return node


def _select(source: Source, model: dict[str, Any], weights: str | None) -> None:
    """Keep one set of a generator's weights under the network's name, or both sets."""
    if weights is not None:
        lookup(SETS, weights, 'set of weights')
    averaged = any(name.startswith(SETS['ema']) for name in source.weights)
    trained = any(name.startswith(SETS['model']) for name in source.weights)
    if not averaged:
        noted = source.facts.get('weights')
        if weights is not None and weights != (noted or 'model'):
            raise ValueError(f"weights='{weights}': '{source.where}' has one set of weights ({noted or 'model'}), leave it out")
        if noted is None and weights is None and model.get('ema', True) is not None:
            raise ValueError(f"'{source.where}' has no averaged (EMA) weights: take the trained ones with weights='model'")
        weights = noted or 'model'
    weights = weights or 'ema'
    if weights == 'both':
        assert trained and averaged
    else:
        (prefix,) = SETS[weights if averaged else 'model']
        source.weights = {f'denoiser.{name[len(prefix) :]}': x for name, x in source.weights.items() if name.startswith(prefix)}
        model.update(ema=None, sample_model='model')
    source.facts['weights'] = weights


def _set_vae(model: dict[str, Any], vae: Any, load_vae: bool, where: str) -> None:
    """Set the VAE and its path; see `usp_mm.from_pretrained`."""
    part, given = vae_part(model), vae_given(vae)
    settings = vae_settings(part.get('vae'))
    if part is model.get('backbone'):
        settings['load_weights'] = load_vae or bool(part.get('train_vae'))
    else:
        for key in ('batch_augments', 'noise'):
            part.pop(key, None)
        part['load_vae'] = load_vae
    if (name := given.get('name') or settings['name']) != settings['name']:
        settings.update(path=None, stats=None)
    settings |= given
    part['vae'] = settings
    path, row = settings.get('path'), lookup(VAES, name, 'VAE')
    if path is None or not load_vae or '://' in str(path) or Path(path).exists():
        return
    if 'path' in given or row['codec'] != 'diffusers' or name == 'tiny':
        raise FileNotFoundError(f"'{where}': its VAE '{name}' is not at '{path}': give the place with vae=…")
    if not _HUB_ID.fullmatch(str(path)):
        MMLogger.get_current_instance().info(
            f"'{where}' has its VAE at '{path}', which is not here: '{row['source']}' is taken; vae=… gives another"
        )
        settings['path'] = None


def vae_part(model: dict[str, Any]) -> dict[str, Any]:
    """The part of a model's config whose `vae` it is: a segmentor's backbone, otherwise the data preprocessor."""
    part: dict[str, Any]
    part = model['backbone'] if model['type'] == SEGMENTOR else model.setdefault('data_preprocessor', {})
    return part


def vae_given(vae: Any) -> dict[str, Any]:
    """The argument `vae` of `usp_mm.from_pretrained` as a dict.

    Raises:
        ValueError: A key or preset is unknown.
    """
    if vae is None:
        return {}
    if not isinstance(vae, Mapping):
        return dict(name=str(vae)) if str(vae) in VAES else dict(path=str(vae))
    for key in vae:
        lookup(dict.fromkeys(_VAE_KEYS), key, 'key of vae')
    if 'name' in vae:
        lookup(VAES, vae['name'], 'VAE')
    return dict(vae)


def build(source: Source, allow_other_vae: bool) -> nn.Module:
    """Build the model with its weights, in eval mode.

    Raises:
        ValueError: The weights or VAE do not fit the config.
    """
    cfg = source.cfg['model']
    with explain_arguments(Config(dict(model=cfg))):
        model: nn.Module = MODELS.build(ConfigDict(cfg))
    load_exactly(model, source.weights, source.where, fix=source.fix)
    codec = codec_of(model)
    if source.vae is None:
        source.vae = vae_record(codec)
    elif cfg['data_preprocessor']['load_vae']:
        line = compare_vae(source.vae, vae_record(codec), source.where, warn=True)
        if line and not allow_other_vae:
            raise ValueError(f'{line}: give its own with vae=…, or allow another one with allow_other_vae=True')
        if line:
            MMLogger.get_current_instance().warning(line)
    return model.eval()
