"""Flipped bits of checkpoints are found, compressed ones are read and not mapped, and safetensors carry a hash."""

import random
import zipfile

import pytest
import torch
from helpers.checkpoint_files import official
from helpers.python_scripts import run_script
from mmengine.runner import CheckpointLoader
from safetensors import safe_open
from safetensors.torch import save_file

from usp_mm.checkpoints import convert
from usp_mm.fileio.atomic import sha256
from usp_mm.fileio.checksums import check_sha256, save_safetensors
from usp_mm.fileio.weights import read_checkpoint, read_weights

STATE = {
    'a.weight': torch.arange(4096.0).reshape(64, 64) / 4096,
    'b': torch.ones(1000, dtype=torch.bfloat16),
    'c': torch.tensor(3),
}


def same(found: dict, expected: dict) -> bool:
    return found.keys() == expected.keys() and all(found[name].equal(expected[name]) for name in expected)


def flips(path, seed, num=60):
    """Damage a file `num` times, by one bit each, drawn from a seed; yields the number of the byte."""
    content, draw = path.read_bytes(), random.Random(seed)
    for _ in range(num):
        place, bit = draw.randrange(len(content)), draw.randrange(8)
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
        yield place
    path.write_bytes(content)


@pytest.mark.parametrize('entry', ['read_weights', 'convert', 'resume'])
@pytest.mark.parametrize('ending', ['.pth', '.safetensors'])
def test_a_flipped_bit_is_found_or_changes_nothing(ending, entry, tmp_path):
    """What is not covered by a checksum is padding, times and further copies of names."""
    path = tmp_path / f'weights{ending}'
    weights = official('timm') if entry == 'convert' else STATE
    torch.save(dict(state_dict=weights), path) if ending == '.pth' else save_safetensors(weights, path)
    read = {
        'read_weights': lambda: read_weights(path),
        'convert': lambda: read_weights((convert(path, tmp_path / 'out.pth', force=True), tmp_path / 'out.pth')[1]),
        'resume': lambda: CheckpointLoader.load_checkpoint(str(path), map_location='cpu')['state_dict'],
    }[entry]
    expected, found = {name: x.clone() for name, x in read().items()}, 0
    for place in flips(path, seed=7, num=60 if entry != 'convert' else 20):
        try:
            now = read()
        except ValueError as error:
            found += '\n' not in str(error)
        else:
            assert same(now, expected), f'byte {place}'
    assert found > 10
    assert same(read(), expected)


def test_flipped_bits_of_tensors_are_all_found(tmp_path):
    for name, offset in (('x.pth', 4096), ('x.safetensors', 4096)):
        path = tmp_path / name
        torch.save(STATE, path) if name == 'x.pth' else save_safetensors(STATE, path)
        content = bytearray(path.read_bytes())
        for bit in range(60):
            content[offset + bit * 97] ^= 1 << bit % 8
            path.write_bytes(content)
            with pytest.raises(ValueError, match=rf'{name} is damaged, the checksum of .* differs: copy it again'):
                read_weights(path)
            content[offset + bit * 97] ^= 1 << bit % 8


def test_a_compressed_checkpoint_is_read_and_not_mapped(tmp_path):
    torch.save(dict(state_dict=STATE), tmp_path / 'stored.pth')
    for level, kind in ((1, zipfile.ZIP_DEFLATED), (9, zipfile.ZIP_DEFLATED), (None, zipfile.ZIP_STORED)):
        path = tmp_path / f'again-{level}.pth'
        with zipfile.ZipFile(tmp_path / 'stored.pth') as old, zipfile.ZipFile(path, 'w', kind, compresslevel=level) as new:
            for member in old.namelist():
                new.writestr(member, old.read(member))
        for mmap in (False, True):
            assert same(read_checkpoint(path, mmap=mmap)['state_dict'], STATE), (level, mmap)


def test_one_compressed_member_among_stored_ones(tmp_path):
    torch.save(dict(state_dict=STATE), tmp_path / 'stored.pth')
    with zipfile.ZipFile(tmp_path / 'stored.pth') as old, zipfile.ZipFile(tmp_path / 'mixed.pth', 'w') as new:
        for member in old.namelist():
            new.writestr(member, old.read(member), zipfile.ZIP_DEFLATED if member.endswith('data/0') else zipfile.ZIP_STORED)
    assert same(read_weights(tmp_path / 'mixed.pth'), STATE)


def test_files_without_checksums_pass(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(STATE, tmp_path / 'no_crc.pth')
    finally:
        torch.serialization.set_crc32_options(True)
    torch.save(STATE, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    save_file(STATE, tmp_path / 'foreign.safetensors')
    for name in ('no_crc.pth', 'old.pth', 'foreign.safetensors'):
        assert same(read_weights(tmp_path / name), STATE)


def test_safetensors_are_the_same_bytes_each_time(tmp_path):
    for i in range(8):
        save_safetensors(STATE, tmp_path / f'{i}.safetensors')
    assert len({sha256(path) for path in tmp_path.iterdir()}) == 1
    with safe_open(tmp_path / '0.safetensors', 'pt') as file:
        assert file.metadata().keys() == {'format', 'sha256'}


def test_a_file_is_compared_with_its_noted_hash(tmp_path):
    (tmp_path / 'x').write_bytes(b'x')
    check_sha256(tmp_path / 'x', sha256(tmp_path / 'x'), 'run_info.json')
    with pytest.raises(
        ValueError, match=r"x' is damaged or another file: its SHA-256 is 2d711642b726b044…, run_info.json says 00…"
    ):
        check_sha256(tmp_path / 'x', '00', 'run_info.json')


def test_a_kill_while_safetensors_are_written_leaves_nothing_for_ever(tmp_path):
    """save_file writes to a random name first, and is killed there; the next writer removes the folder around it."""
    script = """
        import os, sys
        from pathlib import Path
        import torch
        from usp_mm.fileio import checksums
        from usp_mm.fileio.atomic import write_whole

        def killed(tensors, path, **kwargs):
            Path(path).with_name('.tmpAbCdEf').write_bytes(b'half')
            os._exit(0)

        checksums.save_file = killed
        with write_whole(Path('FOLDER/x.safetensors')) as file:
            checksums.save_safetensors(dict(w=torch.ones(3)), Path(file.name))
    """
    run_script(script.replace('FOLDER', str(tmp_path)))
    assert {path.suffix for path in tmp_path.iterdir()} == {'.tmp'}
    assert len(list(tmp_path.rglob('.tmpAbCdEf'))) == 1 and not (tmp_path / '.tmpAbCdEf').exists()
    save_safetensors(STATE, tmp_path / 'x.safetensors')
    assert [path.name for path in tmp_path.rglob('*')] == ['x.safetensors']
    assert read_weights(tmp_path / 'x.safetensors')['a.weight'].equal(STATE['a.weight'])
