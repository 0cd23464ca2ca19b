"""Records and warnings of upstream libraries that are left out, and those beside them that stay."""

import io
import logging
import warnings

import pytest

from usp_mm.compat.log_noise import quiet_imports, quiet_logger, quiet_warnings


@pytest.fixture
def logger(tmp_path):
    made = logging.Logger('noise')
    made.addHandler(logging.StreamHandler(io.StringIO()))
    made.addHandler(logging.FileHandler(tmp_path / 'run.log'))
    quiet_logger(made)
    return made


def test_long_records_go_to_the_file_alone_and_noise_nowhere(logger, tmp_path):
    dashes = '-' * 60
    long = [f'\n{dashes}\nSystem environment:\n    a: 1', 'Config:\na = 1', 'Hooks will be executed in the following order:\nx']
    noise = [
        '"FileClient" will be deprecated in future. Please',
        'Exp name: usp_20261127',
        'Loads checkpoint by local backend from path: a.pth',
    ]
    for record in [*long, *noise, 'Configs differ', 'Config: none']:
        logger.info(record)
    logger.warning(ValueError('not a text'))  # a record may be any object
    assert logger.handlers[0].stream.getvalue() == 'Configs differ\nConfig: none\nnot a text\n'
    assert (tmp_path / 'run.log').read_text() == '\n'.join([*long, 'Configs differ', 'Config: none', 'not a text']) + '\n'


def test_a_warning_is_ignored_by_its_text_and_its_module():
    text, place = 'This DataLoader will create 4 worker processes in total.', 'torch.utils.data.dataloader'
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        quiet_warnings()
        for message, module in ((text, place), (text, 'mine'), ('num_workers is large', place)):
            warnings.warn_explicit(message, UserWarning, 'file.py', 1, module=module)
        buffers, wrapper = '`broadcast_buffers` is deprecated. Use', 'mmengine.model.wrappers.distributed'
        warnings.warn_explicit(buffers, FutureWarning, 'file.py', 1, module=wrapper)
    assert [str(one.message) for one in caught] == [text, 'num_workers is large']


def test_a_record_of_an_import_is_left_out_and_its_neighbours_stay(monkeypatch):
    """As transformers logs it when diffusers imports an image processor by its older name."""
    logger, shown = logging.getLogger('transformers.utils.import_utils'), io.StringIO()
    monkeypatch.setattr(logger, 'handlers', [logging.StreamHandler(shown)])
    monkeypatch.setattr(logger, 'propagate', False)
    monkeypatch.setattr(logger, 'filters', [])
    quiet_imports()
    ends = 'is deprecated. The `Fast` suffix for image processors has been removed'
    for record in (f'`Siglip2ImageProcessorFast` {ends}', f'`SiglipImageProcessorFast` {ends}', '`Siglip2ImageProcessorFast`'):
        logger.warning(record)
    assert shown.getvalue() == f'`SiglipImageProcessorFast` {ends}\n`Siglip2ImageProcessorFast`\n'
