"""What is killed: a command, how it goes on, and which of its files are compared how."""

from dataclasses import dataclass
from pathlib import Path

#: Stands in a command for the folder in which the scenario writes.
HERE = '@'
#: Logs of a training; each start of a run has a folder of its own.
_LOGS = r'\d{8}_\d{6}(/|$)'


@dataclass(frozen=True)
class Scenario:
    """A command and what it leaves.

    Attributes:
        tool: Its file in `tools`.
        words: Its arguments, with `HERE` for the folder that it writes in.
        again: Further arguments when it is started again after a kill.
        processes: 2 or more run as torchrun runs them.
        watched: Glob patterns of files whose appearance is aimed at.
        weights: Glob patterns of files that are compared tensor by tensor, without logs and times.
        volatile: Glob patterns of files that tell times or processes; they have to exist.
        logs: Regular expression of files that are not compared, temporary ones and validation scores aside; empty for none.
        done: Part of the error that says the result was complete already; empty for none.
        needs: Checkpoints of `make_data` that it reads.
    """

    name: str
    tool: str
    words: tuple[str, ...]
    again: tuple[str, ...] = ()
    processes: int = 1
    watched: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    volatile: tuple[str, ...] = ()
    logs: str = ''
    done: str = ''
    needs: tuple[str, ...] = ()


def scenarios(data: Path) -> dict[str, Scenario]:
    """All scenarios by name; `data` is the folder that `make_data` fills."""
    found = [*_trainings(data), *_caches(data), *_samples(data), *_conversions(data), _vae(data)]
    return {scenario.name: scenario for scenario in found}


def training(data: Path, name: str, config: str, processes: int = 1) -> Scenario:
    """The training of a config of `CONFIGS`."""
    launcher = ('--launcher', 'pytorch') if processes > 1 else ()
    return Scenario(
        name,
        'train.py',
        (f'{data}/{config}.py', '--work-dir', HERE, *launcher),
        ('--resume',),
        processes,
        watched=('*.pth', '.*.tmp', 'last_checkpoint', 'last_validation', 'model'),
        weights=('*.pth', '*.safetensors'),
        volatile=('run_info.json', 'README.md', '*.py', '.training.lock'),
        logs=_LOGS,
        needs=('usp',) if config == 'probe' else (),
    )


def _trainings(data: Path) -> list[Scenario]:
    names = ('pretrain', 'pretrain-keep1', 'pretrain-images', 'probe', 'sit')
    two = (training(data, f'{name}-2', name, processes=2) for name in ('pretrain', 'probe', 'sit'))
    return [*(training(data, name, name) for name in names), *two]


def cache(data: Path, name: str, workers: int = 0, processes: int = 1) -> Scenario:
    """The cache of the images, in shards of 16."""
    words = ('write', f'{data}/images', f'{HERE}/cache', '--vae', 'tiny', '--vae-path', f'{data}/vae', '--img-size', '64')
    words += ('--shard-size', '16', '--workers', str(workers))
    return Scenario(name, 'cache_latents.py', words, processes=processes, watched=('cache/*', 'cache/.*'), volatile=('.lock',))


def _caches(data: Path) -> list[Scenario]:
    return [cache(data, 'cache'), cache(data, 'cache-workers', workers=2), cache(data, 'cache-2', processes=2)]


def _samples(data: Path) -> list[Scenario]:
    words = (f'{data}/sit.py', f'{data}/sit.pth', '--num', '24', '--out', f'{HERE}/s.npz', '--batch-size', '4')
    watched = ('s.npz*', '.s.npz*', 's.npz.parts/*')
    return [
        Scenario('sample', 'sample.py', words, watched=watched, volatile=('*.lock',), needs=('sit',)),
        Scenario('sample-2', 'sample.py', words, processes=2, watched=watched, volatile=('*.lock',), needs=('sit',)),
    ]


def _conversions(data: Path) -> list[Scenario]:
    def conversion(name: str, source: str, *words: str, done: str = '') -> Scenario:
        command = (f'{data}/{source}.pth', *words)
        weights = ('*.pth', '*.safetensors')
        return Scenario(
            name, 'convert_checkpoint.py', command, watched=('*', '.*'), weights=weights, done=done, needs=(source,)
        )

    shape = ('--num-heads', '4', '--num-classes', '4', '--vae', f'{data}/vae', '--force')
    return [
        conversion('convert', 'usp', f'{HERE}/official.pth', '--to', 'official', done='exists'),
        conversion('convert-timm', 'usp', f'{HERE}/timm.safetensors', '--to', 'timm', done='exists'),
        conversion('convert-diffusers', 'dit', f'{HERE}/pipeline', '--to', 'diffusers', *shape),
    ]


def _vae(data: Path) -> Scenario:
    words = (f'{data}/images', f'{HERE}/vae', '--steps', '6', '--batch-size', '8')
    return Scenario('vae', 'train_tiny_vae.py', words, watched=('.vae*', 'vae'), done='is not empty')
