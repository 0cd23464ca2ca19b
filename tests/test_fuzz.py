"""Files and options that are nearly right: one line says what is wrong, nothing hangs, nothing takes much memory.

`python dev/fuzz.py` tries more inputs.
"""

import resource

import pytest
from helpers.fuzz_targets import TARGETS, attempt
from hypothesis import HealthCheck, Phase, given, settings

#: Inputs of each parser here, always the same ones.
NUM = 300


@pytest.mark.parametrize('name', TARGETS)
def test_what_is_nearly_right(name, tmp_path):
    target = TARGETS[name](tmp_path)
    found: dict[str, object] = {}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @settings(
        max_examples=NUM, derandomize=True, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(target.inputs)
    def run(value):
        outcome = attempt(target, value)
        if outcome is not None:
            found.setdefault(outcome, value)

    run()
    assert found == {}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # kilobytes
