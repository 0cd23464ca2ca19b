"""Write the model folder of a finished training."""

from pathlib import Path

from mmengine.dist import master_only
from mmengine.runner import Runner

from usp_mm.engine.checkpointing.latest_checkpoint import named_checkpoint
from usp_mm.fileio.atomic import write_folder
from usp_mm.fileio.weights import FOLDER_CONFIG, FOLDER_INFO, FOLDER_WEIGHTS, read_trained

from .pretrained import from_pretrained
from .sources import OF_A_RUN


@master_only
def write_final_folder(runner: Runner) -> None:
    """Write `<work_dir>/model`, as `usp export` does from the last checkpoint: of a generator the averaged weights.

    The folder of an earlier run is replaced when the new one is whole. The training has ended, so whatever prevents the folder
    is a line in the log: a kind of model that has none, a VAE that is not at hand, a checkpoint of an earlier iteration, a full
    disk, or a folder of that name with other content.
    """
    out = Path(runner.work_dir) / OF_A_RUN
    try:
        checkpoint = _last_checkpoint(runner)
        if out.exists() and not all((out / name).is_file() for name in (FOLDER_CONFIG, FOLDER_WEIGHTS, FOLDER_INFO)):
            raise FileExistsError(f"'{out}' holds something else: move it")
        _replace(checkpoint, out)
    except (ValueError, OSError) as error:
        runner.logger.warning(f'no model folder of this run: {error}')
    else:
        runner.logger.info(f"usp_mm.from_pretrained('{out}') loads the model (model_folder=False in a config writes no folder)")


def _last_checkpoint(runner: Runner) -> Path:
    found = named_checkpoint(Path(runner.work_dir))
    if found is None:
        raise FileNotFoundError(f"no checkpoint in '{runner.work_dir}'")
    iteration = read_trained(found).meta.get('iter')
    if iteration != runner.iter:
        raise ValueError(f"the last checkpoint '{found}' is of iteration {iteration}, the training ended at {runner.iter}")
    return found


def _replace(checkpoint: Path, out: Path) -> None:
    name = out.absolute().parent.name
    with write_folder(out, replace=True) as whole:
        from_pretrained(checkpoint, device='cpu', load_vae=False).save_pretrained(whole, repo_id=name)
