"""Running the commands of the quickstart, and reading what they logged."""

import json
import shlex
import statistics
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

from rich.console import Console

console = Console()


class Stages:
    """Runs commands one after another, each with its own log file, and remembers their times."""

    def __init__(self, work_dir: Path) -> None:
        self.work_dir = work_dir
        self.seconds: dict[str, float] = {}

    def run(self, name: str, *command: object) -> None:
        """Run `python COMMAND`; its output goes to WORK_DIR/logs/NAME.log.

        Raises:
            SystemExit: the command failed; its last lines are shown.
        """
        words = [str(word) for word in command]
        console.print(f'\n[bold]{name}[/]  python {shlex.join(words)}', highlight=False, soft_wrap=True)
        log = self.work_dir / 'logs' / f'{name.replace(" ", "-")}.log'
        log.parent.mkdir(parents=True, exist_ok=True)
        start, lines = time.monotonic(), deque[str](maxlen=20)
        with log.open('w') as file, console.status('…') as status:
            process = subprocess.Popen(
                [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace'
            )
            try:
                for line in process.stdout:
                    file.write(line)
                    lines.append(line.rstrip())
                    status.update(f'{time.monotonic() - start:4.0f} s  {lines[-1][-(console.width - 15) :]}')
                code = process.wait()
            except KeyboardInterrupt:
                process.terminate()
                process.wait()
                sys.exit('interrupted: run the same command again; data, VAE and latent caches that are finished are kept')
        self.seconds[name] = round(time.monotonic() - start, 1)
        if code:
            console.print('\n'.join(lines), markup=False, highlight=False)
            sys.exit(f"stage '{name}' failed (exit code {code}); its log: {log}")
        console.print(f'  {self.seconds[name]:.0f} s, log: {log}', highlight=False)


def scalars(run_dir: Path) -> list[dict]:
    """The records that MMEngine logged in a work folder's latest run."""
    newest = max(run_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for line in newest.read_text().splitlines()]


def last_checkpoint(run_dir: Path) -> str:
    """The newest checkpoint of a work folder."""
    return (run_dir / 'last_checkpoint').read_text().strip()


def vae_options(work_dir: Path) -> list[str]:
    """Config options that set the VAE of every stage."""
    return [f'model.data_preprocessor.vae_path={work_dir}/vae']


def latent_options(work_dir: Path, *splits: str) -> list[str]:
    """Config options that set the latent caches of 'train' and, for 'val', of validation and test."""
    loaders = {'train': ['train'], 'val': ['val', 'test']}
    return [f'{name}_dataloader.dataset.data_root={work_dir}/latents/{split}' for split in splits for name in loaders[split]]


def mean_of(values: list[float], digits: int) -> str:
    """'mean' of one value, 'mean ± standard deviation' of several."""
    text = f'{statistics.mean(values):.{digits}f}'
    return f'{text} ± {statistics.stdev(values):.{digits}f}' if len(values) > 1 else text
