"""One thread: these tests compute little, and idle threads that wait for each other cost seconds on busy machines."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope='module')
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
