"""Run commands of this package one after another or side by side, and read what they logged."""

import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from usp_mm.config.values import quote_value
from usp_mm.fileio.atomic import write_whole
from usp_mm.runtime.console import table_console
from usp_mm.runtime.processes import child_environment, how_it_ended

console = table_console(100)

#: Begins a command line that runs `usp COMMAND …` of this package, whether or not the script `usp` is on the path.
_USP = ['-c', 'from usp_mm.cli.main import main; main()']


class Stages:
    """Runs commands, each with its own log file, and remembers their times.

    Args:
        work_dir: Folder of the log files, 'logs'.
        go_on: What the line that follows an interruption says.

    Attributes:
        seconds: Wall time of each command in seconds, by name.
        total: Seconds of all commands; commands that ran side by side count once.
    """

    def __init__(
        self,
        work_dir: Path,
        go_on: str = 'run the same command again; data, VAE and latent caches that are finished are kept',
    ) -> None:
        self.work_dir, self.go_on = work_dir, go_on
        self.seconds: dict[str, float] = {}
        self.total = 0.0

    def run(self, name: str, *command: object) -> None:
        """Run `python COMMAND`, or a command 'usp …' of this package; its output goes to WORK_DIR/logs/NAME.log.

        Raises:
            SystemExit: the command failed; its last lines are shown.
        """
        self.run_together({name: command})

    def run_together(self, commands: Mapping[str, Sequence[object]]) -> None:
        """`run` several commands side by side, which share the processor's cores."""
        threads = {}
        if len(commands) > 1:
            threads['OMP_NUM_THREADS'] = str(max(1, (os.cpu_count() or 1) // len(commands)))
        self.seconds.update(dict.fromkeys(commands, 0.0))  # in the order of their start
        running: dict[str, tuple[subprocess.Popen, Path]] = {}
        start = time.monotonic()
        try:
            with self.going_on():
                self._follow(commands, threads, running, start)
        finally:
            _end([process for process, _ in running.values()])
            self.total += time.monotonic() - start

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """End the program with one line when the block is interrupted."""
        try:
            yield
        except KeyboardInterrupt as error:
            how, code = how_it_ended(error)
            sys.stderr.write(f'{how}: {self.go_on}\n')
            sys.exit(code)

    def _follow(
        self,
        commands: Mapping[str, Sequence[object]],
        env: dict[str, str],
        running: dict[str, tuple[subprocess.Popen, Path]],
        start: float,
    ) -> None:
        """Start the commands, and show their last lines until all have ended."""
        for name, command in commands.items():
            running[name] = self._start(name, command, env)
        with console.status('…') as status:
            while running:
                time.sleep(0.1)
                seconds = time.monotonic() - start
                last = '  |  '.join(_tail(log, 1)[-(console.width // len(running) - 15) :] for _, log in running.values())
                status.update(f'{seconds:4.0f} s  {last}')
                for name in [name for name, (process, _) in running.items() if process.poll() is not None]:
                    self.seconds[name] = round(seconds, 1)
                    self._check(name, *running.pop(name))

    def _start(self, name: str, command: Sequence[object], env: dict[str, str]) -> tuple[subprocess.Popen, Path]:
        words = [str(word) for word in command]
        ours = words[0] == 'usp'
        shown = shlex.join(words if ours else ['python', *words])
        console.print(f'\n[bold]{name}[/]  {shown}', highlight=False, soft_wrap=True)
        log = self.work_dir / 'logs' / f'{name.replace(" ", "-")}.log'
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open('wb') as file:
            arguments = [*_USP, *words[1:]] if ours else words
            process = subprocess.Popen(
                [sys.executable, *arguments], stdout=file, stderr=subprocess.STDOUT, env={**child_environment(), **env}
            )
        return process, log

    def _check(self, name: str, process: subprocess.Popen, log: Path) -> None:
        _drop_bars(log)
        if process.returncode:
            console.print(_tail(log, 20), markup=False, highlight=False)
            sys.exit(f"stage '{name}' failed (exit code {process.returncode}); its log: {log}")
        console.print(f'  {name}: {self.seconds[name]:.0f} s, log: {log}', highlight=False, soft_wrap=True)


def _end(processes: Sequence[subprocess.Popen]) -> None:
    """End the commands that still run: they are asked to end, and killed after ten seconds."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + 10
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _drop_bars(log: Path) -> None:
    """Rewrite a log without what its program wrote over on a terminal: of a progress bar the last state stays."""
    lines = log.read_bytes().split(b'\n')
    with write_whole(log) as file:
        file.write(b'\n'.join(line.rstrip(b'\r').rpartition(b'\r')[2] for line in lines))


def _tail(log: Path, num: int) -> str:
    """The last lines of a log."""
    with log.open('rb') as file:
        file.seek(max(0, log.stat().st_size - 8192))
        lines = file.read().decode(errors='replace').replace('\r', '\n').rstrip().splitlines()
    return '\n'.join(lines[-num:])


def scalars(run_dir: Path) -> list[dict]:
    """The records that MMEngine logged in a work folder's latest run."""
    newest = max(run_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for line in newest.read_text().splitlines()]


def last_checkpoint(run_dir: Path) -> str:
    """The newest checkpoint of a work folder."""
    return str(run_dir / (run_dir / 'last_checkpoint').read_text().strip())


def option(key: str, path: object) -> str:
    """A config option that sets a path, whatever is in its name."""
    return f'{key}={quote_value(path)}'


def vae_options(work_dir: Path) -> list[str]:
    """Config options that set the VAE of every stage."""
    return [option('model.data_preprocessor.vae.path', work_dir / 'vae')]


def latent_options(work_dir: Path, *splits: str) -> list[str]:
    """Config options that set the latent caches of 'train' and, for 'val', of validation and test."""
    loaders = {'train': ['train'], 'val': ['val', 'test']}
    places = [(name, work_dir / 'latents' / split) for split in splits for name in loaders[split]]
    return [option(f'{name}_dataloader.dataset.data_root', path) for name, path in places]


def mean_of(values: list[float], digits: int) -> str:
    """'mean' of one value, 'mean ± standard deviation' of several."""
    text = f'{statistics.mean(values):.{digits}f}'
    return f'{text} ± {statistics.stdev(values):.{digits}f}' if len(values) > 1 else text
