"""Files by address: fetched once, whole or not at all, and one line where they can't be."""

import hashlib
import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers.checkpoint_files import cfg_of, save_official
from helpers.hub_server import local_hub
from helpers.vae_files import Bomb
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import CheckpointLoader
from mmpretrain.registry import MODELS

from usp_mm.checkpoints import convert
from usp_mm.engine.checks.config import check_config
from usp_mm.fileio import addresses
from usp_mm.fileio.addresses import HubFile, hub_address, is_address, local_file
from usp_mm.fileio.weights import read_weights
from usp_mm.vaes.sd import read_config

WEIGHTS = dict(weight=torch.arange(6.0).reshape(2, 3))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    repo = tmp_path / 'web' / 'owner' / 'name'
    repo.mkdir(parents=True)
    torch.save(WEIGHTS, repo / 'net.pth')
    with local_hub(tmp_path / 'web', tmp_path / 'cache', monkeypatch) as server:
        yield server


@pytest.fixture
def lines():
    """What the log says meanwhile."""
    found = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


def downloads(hub):
    return len([path for path in hub.asked if path.endswith('net.pth')])


@pytest.mark.parametrize('path', ['a/b.pth', '/a/b.pth', 'owner/name', 'c:/x', 's3://a/b'])
def test_paths_are_no_addresses(path):
    assert not is_address(path) and local_file(path) == Path(path)


def test_parts_of_an_address():
    assert hub_address('hf://owner/name@v1/folder/file.pth') == HubFile('owner/name', 'folder/file.pth', 'v1')
    assert hub_address('owner/name', 'main') == HubFile('owner/name', '', 'main')
    with pytest.raises(ValueError, match="'owner' is no address on the hub: expected owner/name"):
        hub_address('owner')


def test_a_file_of_the_web_is_fetched_once_and_its_hash_is_told(hub, tmp_path, lines):
    url = f'{hub.url}/files/owner/name/net.pth?key=1'
    found = local_file(url)
    assert found == tmp_path / 'cache' / 'torch' / 'hub' / 'checkpoints' / 'net.pth'
    digest = hashlib.sha256((tmp_path / 'web/owner/name/net.pth').read_bytes()).hexdigest()
    assert lines[-1] == f"'{url}' is '{found}', sha256 {digest}"
    asked = downloads(hub)
    assert torch.equal(read_weights(url)['weight'], WEIGHTS['weight'])
    assert read_weights(Path(url)).keys() == WEIGHTS.keys()  # tools make paths of their arguments
    assert downloads(hub) == asked


def test_files_of_one_name_from_two_addresses_are_two(hub, tmp_path):
    other = tmp_path / 'web' / 'other'
    other.mkdir()
    torch.save(dict(weight=torch.zeros(1)), other / 'net.pth')
    first = local_file(f'{hub.url}/files/owner/name/net.pth')
    second = local_file(f'{hub.url}/files/other/net.pth')
    assert second.name.startswith('net-') and second.suffix == '.pth'
    assert read_weights(first)['weight'].shape == (2, 3) and read_weights(second)['weight'].shape == (1,)
    assert local_file(f'{hub.url}/files/other/net.pth') == second


def test_a_file_that_was_put_there_is_taken_and_said_so(hub, tmp_path, lines):
    place = tmp_path / 'cache' / 'torch' / 'hub' / 'checkpoints' / 'own.pth'
    place.parent.mkdir(parents=True)
    torch.save(WEIGHTS, place)
    assert local_file(f'{hub.url}/files/own.pth') == place and hub.asked == []
    assert lines[0] == f"'{place}' was there before, and is taken for '{hub.url}/files/own.pth'"


def test_a_download_that_was_cut_leaves_nothing(hub, tmp_path):
    hub.cut = 100
    with pytest.raises(ConnectionError, match=r"net\.pth' can't be fetched \(100 of [\d,]+ bytes came\): .* put it at '/"):
        local_file(f'{hub.url}/files/owner/name/net.pth')
    folder = tmp_path / 'cache' / 'torch' / 'hub' / 'checkpoints'
    assert [path.name for path in folder.iterdir() if path.suffix != '.lock'] == []
    hub.cut = None
    assert read_weights(f'{hub.url}/files/owner/name/net.pth').keys() == WEIGHTS.keys()


@pytest.mark.parametrize(
    ('address', 'message'),
    [
        ('{url}/files/absent.pth', r"absent\.pth': the server has no such file for you \(404\): check the address"),
        ('{url}/', 'names no file: give the address of one'),
        ('hf://owner/name', "'hf://owner/name' names no file: add its name, hf://owner/name/FILE"),
        ('hf://owner/name/absent.pth', "'hf://owner/name/absent.pth': no such file or revision in the repository"),
        ('hf://owner/name@v9/net.pth', "'hf://owner/name/net.pth': no such file or revision in the repository"),
        ('hf://owner/absent/net.pth', "'hf://owner/absent/net.pth': no such repository, or a private one"),
        ('hf://owner/na me/net.pth', "is no address on the hub"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_said_in_one_line(hub, address, message):
    with pytest.raises((FileNotFoundError, ValueError), match=message) as error:
        local_file(address.format(url=hub.url))
    assert '\n' not in str(error.value)


def test_a_hub_that_does_not_answer_is_left_at_once(hub, monkeypatch):
    """huggingface_hub would try again for over a minute; what the cache has is taken."""
    local_file('hf://owner/name/net.pth')
    hub.stop()
    addresses._SILENCE.clear()
    monkeypatch.setenv('HTTPS_PROXY', 'http://127.0.0.1:9')
    began = time.monotonic()
    assert read_weights('hf://owner/name/net.pth').keys() == WEIGHTS.keys()
    with pytest.raises(
        ConnectionError, match=r"other\.pth' can't be reached \(ConnectError: .*through the proxy that HTTPS_PROXY"
    ):
        local_file('hf://owner/name/other.pth')
    with pytest.raises(FileNotFoundError, match=r'owner/name is no folder here, .*: get it \(ConnectError: '):
        read_config('owner/name', 'get it')
    assert time.monotonic() - began < 10


@pytest.mark.parametrize('through', ['', 'proxy'])
def test_a_server_that_takes_the_call_and_says_nothing(through, hub, monkeypatch):
    """As a firewall or a wrong proxy: one line after eight seconds, here after one."""
    monkeypatch.setattr(addresses, '_SECONDS', 1.0)
    monkeypatch.setattr(addresses, '_SILENCE', {})
    with socket.create_server(('127.0.0.1', 0)) as silent:
        url = f'http://127.0.0.1:{silent.getsockname()[1]}'
        if through:
            monkeypatch.setenv('HTTP_PROXY', url)
            monkeypatch.setenv('NO_PROXY', '')
            url = 'http://hub.invalid'
        monkeypatch.setattr('huggingface_hub.constants.ENDPOINT', url)
        began = time.monotonic()
        for address in ('hf://owner/name/other.pth', f'{url}/files/other.pth'):
            with pytest.raises(ConnectionError, match=r"other\.pth' can't be (reached|fetched) \(") as error:
                local_file(address)
            assert '\n' not in str(error.value)
        assert time.monotonic() - began < 5


def test_a_file_of_the_hub_is_kept_in_its_cache(hub, tmp_path, lines):
    found = local_file('hf://owner/name/net.pth')
    assert tmp_path / 'cache' / 'hub' in found.parents and found.name == 'net.pth'
    digest = hashlib.sha256(found.read_bytes()).hexdigest()
    assert lines[-1] == f"'hf://owner/name/net.pth' is '{found}', sha256 {digest}"
    assert read_weights('hf://owner/name@v1/net.pth').keys() == WEIGHTS.keys()


def test_mmengine_loads_from_both(hub):
    """`load_from` of a config, and --checkpoint of every upstream tool."""
    for address in ('hf://owner/name/net.pth', f'{hub.url}/files/owner/name/net.pth'):
        found = CheckpointLoader.load_checkpoint(address, map_location='cpu')
        assert torch.equal(found['state_dict']['weight'], WEIGHTS['weight'])


def test_configs_and_converters_take_addresses(hub, tmp_path):
    weights = save_official('timm', tmp_path / 'web' / 'owner' / 'name' / 'vit.pth')['model']
    for name, address in dict(hub='hf://owner/name/vit.pth', web=f'{hub.url}/files/owner/name/vit.pth').items():
        cfg = Config(dict(model=cfg_of('timm', init_cfg=dict(type='USPPretrained', checkpoint=address))))
        check_config(cfg)
        model = MODELS.build(cfg.model)
        model.init_weights()
        assert torch.equal(model.backbone.cls_token, weights['cls_token'])
        out = tmp_path / f'{name}.pth'
        convert(Path(address), out)
        assert torch.equal(read_weights(out)['backbone.cls_token'], weights['cls_token'])
    cfg.model.backbone.init_cfg.checkpoint = 'hf://owner/name/absent.pth'
    with pytest.raises(FileNotFoundError, match=r"'hf://owner/name/absent.pth': no such file"):
        check_config(cfg)


def test_offline_the_line_names_address_and_place(hub, tmp_path):
    kept = [local_file('hf://owner/name/net.pth'), local_file(f'{hub.url}/files/owner/name/net.pth')]
    hub.stop()
    addresses._SILENCE.clear()  # as after a minute
    assert [local_file('hf://owner/name/net.pth'), local_file(f'{hub.url}/files/owner/name/net.pth')] == kept
    place = tmp_path / 'cache' / 'torch' / 'hub' / 'checkpoints' / 'other.pth'
    with pytest.raises(ConnectionError, match=rf"other\.pth' can't be fetched .*put it at '{place}'"):
        local_file(f'{hub.url}/files/other.pth')
    with pytest.raises(ConnectionError, match=r"'hf://owner/name/other\.pth' can't be reached .*`hf download owner/name other"):
        local_file('hf://owner/name/other.pth')
    hub.stop = lambda: None


def test_a_file_from_the_web_is_data(hub, tmp_path):
    torch.save(dict(weight=torch.zeros(1), bomb=Bomb(tmp_path / 'exploded')), tmp_path / 'web' / 'bomb.pth')
    with pytest.raises(ValueError, match='holds more than data'):
        read_weights(f'{hub.url}/files/bomb.pth')
    assert not (tmp_path / 'exploded').exists()


def test_the_endpoint_of_the_environment_holds(hub, tmp_path):
    """In a process of its own, as users set it."""
    env = {**os.environ, 'HF_ENDPOINT': hub.url, 'HF_HOME': str(tmp_path / 'home')}
    code = "from usp_mm.fileio.addresses import local_file; print(local_file('hf://owner/name/net.pth'))"
    found = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True, check=True)
    assert str(tmp_path / 'home') in found.stdout.splitlines()[-1]
