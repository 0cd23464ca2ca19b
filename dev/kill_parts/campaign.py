"""Kill runs at chosen moments, start each again until it is done, and compare what it left."""

import random
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .changes import Change, Kill, changes_in
from .compare import KINDS, Deviation, content, differences
from .runs import log_of, start, start_cold, wait
from .scenarios import Scenario

#: Kills before a run may end, in the random modes.
PER_RUN = 3


class Row(NamedTuple):
    """Kills of one scenario in one mode, and how many runs were not resumable, differing or left stray files."""

    scenario: str
    mode: str
    kills: int
    runs: int
    bad: Counter[str]
    seconds: float


class Campaign:
    """
    Args:
        work: Folder for everything.
        seed: Of the moments.
        cold: Whether each run is a fresh interpreter, as a user's.
        patience: Seconds after which a run that was started again counts as hanging.
    """

    def __init__(self, work: Path, seed: int = 0, cold: bool = False, patience: float = 180) -> None:
        self.work, self.cold, self.patience = work, cold, patience
        self.random = random.Random(seed)
        self.rows: list[Row] = []
        self.deviations: list[tuple[str, str, Deviation]] = []
        self._expected: dict[str, tuple[dict[str, str], float]] = {}

    def uniform(self, scenario: Scenario, kills: int) -> None:
        """Kill at moments drawn uniformly from the time that a run takes."""
        seconds = self._undisturbed(scenario)[1]

        def watch(pid: int) -> tuple[int | None, str]:
            moment = self.random.uniform(0, seconds)
            return wait(pid, until=time.monotonic() + moment)[0], f'{moment:.2f} s of {seconds:.2f}'

        self._random(scenario, 'uniform', kills, watch)

    def aimed(self, scenario: Scenario, kills: int) -> None:
        """Kill 0 to 20 ms after a file that matters appeared, grew from nothing or vanished."""
        counted = Appearance(self._fresh(scenario), scenario.watched)
        wait(self._start(scenario), seen=counted)

        def watch(pid: int) -> tuple[int | None, str]:
            number, delay = self.random.randint(1, max(counted.count, 1)), self.random.choice((0, 0, 0.001, 0.005, 0.02))
            code, seen = wait(pid, seen=Appearance(self._folder(scenario), scenario.watched, number, delay))
            return code, str(seen)

        self._random(scenario, 'aimed', kills, watch)

    def steps(self, scenario: Scenario, kills: int, matching: str = '') -> None:
        """Kill before each change of the file system, or before `kills` of them: changes of logs last."""
        expected, _ = self._undisturbed(scenario)
        noted, begun = self.work / f'{scenario.name}.changes', time.monotonic()
        bad, delivered = Counter[str](), 0
        for number, change in self._chosen(scenario, noted, kills, matching):
            noted.unlink(missing_ok=True)
            folder = self._fresh(scenario)
            code, _ = wait(start(scenario, folder, self._log(scenario), kill=Kill(number, noted)), self._limit())
            if code == -signal.SIGKILL:
                delivered += 1
            elif scenario.processes == 1:
                self.deviations.append((scenario.name, f'step {number}', Deviation(KINDS[0], f'no kill: exit code {code}')))
            bad += self._complete(scenario, expected, f'before change {number}: {change.event} {change.path}')
        self._add(Row(scenario.name, 'steps', delivered, delivered, bad, time.monotonic() - begun))

    def _chosen(self, scenario: Scenario, noted: Path, kills: int, matching: str) -> list[tuple[int, Change]]:
        folder = self._fresh(scenario)
        noted.unlink(missing_ok=True)
        wait(start(scenario, folder, self._log(scenario), kill=Kill(0, noted)))
        changes = {change.number: change for change in changes_in(noted)}
        found = [number for number, change in changes.items() if re.search(matching, f'{change.event} {change.path}')]
        if kills and len(found) > kills:
            logs = [number for number in found if self._is_log(scenario, changes[number].path)]
            rest = sorted(set(found) - set(logs))
            rest = self.random.sample(rest, min(kills, len(rest)))
            found = rest + self.random.sample(logs, kills - len(rest))
        return [(number, changes[number]) for number in sorted(found)]

    def _is_log(self, scenario: Scenario, path: str) -> bool:
        inside = path.removeprefix(f'{self._folder(scenario)}/')
        return bool(scenario.logs and re.match(scenario.logs, inside))

    def _random(self, scenario: Scenario, mode: str, kills: int, watch: Callable[[int], tuple[int | None, str]]) -> None:
        expected, _ = self._undisturbed(scenario)
        bad, begun = Counter[str](), time.monotonic()
        delivered = runs = 0
        while delivered < kills and runs < 4 * kills:
            runs += 1
            self._fresh(scenario)
            moments: list[str] = []
            while len(moments) < min(PER_RUN, kills - delivered):
                code, told = watch(self._start(scenario, again=bool(moments)))
                if code is not None:  # it ended first; a failure shows when it is started once more
                    break
                moments.append(told)
            delivered += len(moments)
            bad += self._complete(scenario, expected, f'{mode}: {", ".join(moments)}')
        self._add(Row(scenario.name, mode, delivered, runs, bad, time.monotonic() - begun))

    def _undisturbed(self, scenario: Scenario) -> tuple[dict[str, str], float]:
        """What the scenario leaves when it is left alone, and the seconds that it takes."""
        if scenario.name not in self._expected:
            folder, begun = self._fresh(scenario), time.monotonic()
            code, _ = wait(self._start(scenario))
            if code:
                raise SystemExit(f'{scenario.name}: the run that was left alone failed ({code}): {log_of(self._log(scenario))}')
            self._expected[scenario.name] = content(scenario, folder), time.monotonic() - begun
        return self._expected[scenario.name]

    def _complete(self, scenario: Scenario, expected: dict[str, str], moment: str) -> Counter[str]:
        """Start the scenario once more, compare, and return the kinds of deviations."""
        code, _ = wait(self._start(scenario, again=True), self._limit())
        log = log_of(self._log(scenario))
        found = []
        if code is None:
            found = [Deviation(KINDS[0], f'still running after {self.patience:.0f} s')]
        elif code and not (scenario.done and scenario.done in log[-3000:]):
            last = ([line for line in log.splitlines() if line.strip()] or [''])[-1]
            found = [Deviation(KINDS[0], f'exit code {code}: {last[:300]}')]
        found += differences(expected, content(scenario, self._folder(scenario)))
        for kind, told in found:
            self.deviations.append((scenario.name, moment, Deviation(kind, told)))
            print(f'  {scenario.name}, killed {moment}: {kind}: {told}', flush=True)
        if found:
            shutil.copy(self._log(scenario), self.work / f'{scenario.name}-{len(self.deviations)}.log')
        return Counter({deviation.kind for deviation in found})

    def _start(self, scenario: Scenario, again: bool = False) -> int:
        begin = start_cold if self.cold else start
        return begin(scenario, self._folder(scenario), self._log(scenario), again)

    def _folder(self, scenario: Scenario) -> Path:
        return self.work / scenario.name

    def _log(self, scenario: Scenario) -> Path:
        return self.work / f'{scenario.name}.log'

    def _fresh(self, scenario: Scenario) -> Path:
        folder = self._folder(scenario)
        shutil.rmtree(folder, ignore_errors=True)
        self._log(scenario).unlink(missing_ok=True)
        folder.mkdir(parents=True)
        return folder

    def _limit(self) -> float:
        return time.monotonic() + self.patience

    def _add(self, row: Row) -> None:
        self.rows.append(row)
        counts = ''.join(f'{row.bad[kind]:>{len(kind) + 2}}' for kind in KINDS)
        print(f'{row.scenario:18} {row.mode:8} {row.kills:5} {row.runs:5} {counts} {row.seconds:6.0f} s', flush=True)


class Appearance:
    """Counts when files of some patterns appear, grow from nothing or vanish, and tells, a moment later, of the `number`-th."""

    def __init__(self, folder: Path, patterns: tuple[str, ...], number: int = 0, delay: float = 0) -> None:
        self._folder, self._patterns, self._number, self._delay = folder, patterns, number, delay
        self._state, self.count = self._look(), 0

    def __call__(self) -> str | None:
        before, self._state = self._state, self._look()
        changed = sorted(name for name in before.keys() | self._state.keys() if before.get(name) != self._state.get(name))
        self.count += bool(changed)
        if not changed or self.count != self._number:
            return None
        time.sleep(self._delay)
        return f'{changed[-1]} + {self._delay * 1000:.0f} ms'

    def _look(self) -> dict[str, tuple[int, bool]]:
        found = {}
        for pattern in self._patterns:
            for path in self._folder.glob(pattern):
                try:
                    state = path.stat()
                except FileNotFoundError:
                    continue
                found[path.name] = (state.st_ino, state.st_size == 0)
        return found
