"""What `usp test --out` writes."""

import mmengine
import pytest
from helpers.full_disk import fill_disk_at

from usp_mm.cli.test import METRIC_FILES, write_metrics

METRICS = {'accuracy/top1': 0.5, 'größe': 3}


@pytest.mark.parametrize('ending', METRIC_FILES)
def test_metrics_are_whole_or_absent(ending, tmp_path, monkeypatch):
    path = tmp_path / 'new' / f'metrics{ending}'
    write_metrics(path, METRICS)
    assert mmengine.load(path) == METRICS
    fill_disk_at(monkeypatch, path.name)
    with pytest.raises(OSError, match=rf"cannot write '{path}', the disk is full: "):
        write_metrics(path, {'accuracy/top1': 1.0})
    assert mmengine.load(path) == METRICS and [found.name for found in path.parent.iterdir()] == [path.name]
