"""The launched demo over HTTP: which files it gives away (none), two users at once, and how it starts and ends."""

import importlib.util
import json
import os
import socket
import stat
import tempfile
import threading
import uuid
from pathlib import Path

import httpx
import pytest
from helpers.small_world import ROOT

from usp_mm.app.server import PORTS, QUEUED, SESSIONS, TIMED, free_port, private_folder

SECRET = 'the secret'


def functions(page, name):
    """Numbers of the events that call a function of this name."""
    return [number for number, one in page.fns.items() if one.name == name]


def upload(url, path):
    with open(path, 'rb') as file:
        (stored,) = httpx.post(f'{url}/gradio_api/upload', files={'files': (Path(path).name, file)}, timeout=60).json()
    return dict(path=stored, orig_name=Path(path).name, meta={'_type': 'gradio.FileData'})


def call(url, number, *data):
    """One event of a browser's session: whether it succeeded, and its output."""
    session = uuid.uuid4().hex
    body = dict(data=list(data), fn_index=number, session_hash=session)
    httpx.post(f'{url}/gradio_api/queue/join', json=body, timeout=60).raise_for_status()
    with httpx.stream('GET', f'{url}/gradio_api/queue/data', params=dict(session_hash=session), timeout=120) as stream:
        for line in stream.iter_lines():
            message = json.loads(line[6:]) if line.startswith('data: ') else {}
            if message.get('msg') == 'process_completed':
                return message['success'], message['output']
    raise AssertionError('the server ended the stream')


def content(url, found):
    """Bytes of the pictures of an output."""
    return [httpx.get(f'{url}/gradio_api/file={one["path"]}').raise_for_status().content for one in found['data']]


@pytest.fixture(scope='module')
def secret(tmp_path_factory):
    path = tmp_path_factory.mktemp('secret') / 'secret.txt'
    path.write_text(SECRET)
    return path


@pytest.mark.parametrize(
    'prefix', ['file=', 'gradio_api/file=', 'gradio_api/file/', 'gradio_api/stream/', 'static/', 'assets/']
)
def test_no_file_of_the_server_is_given_away(demo, secret, prefix):
    _, url = demo
    dots = '..%2f' * 12
    for path in (secret, ROOT / 'README.md', '/etc/passwd', f'{dots}{str(secret)[1:]}', f'..{secret}'):
        answer = httpx.get(f'{url}/{prefix}{path}')
        assert answer.status_code in (403, 404), (prefix, path)
        assert SECRET not in answer.text and 'root:' not in answer.text


def test_a_file_that_was_not_uploaded_is_no_input(demo, secret, photos):
    page, url = demo
    for path in (secret, photos / '0.png'):
        found = dict(path=str(path), orig_name='a.png', meta={'_type': 'gradio.FileData'})
        success, output = call(url, functions(page, 'restore')[0], 'pretraining.pth', found, 0.5, 0)
        assert not success and SECRET not in json.dumps(output) and 'data' not in output


def test_the_page_asks_nothing_of_other_servers(demo):
    page, url = demo
    answer = httpx.get(url)
    policy = answer.headers['content-security-policy']
    assert policy.startswith("default-src 'self' ") and 'http' not in policy
    assert (page.share, page.analytics_enabled, page.allowed_paths, page.enable_monitoring) == (False, False, [], False)
    assert httpx.get(f'{url}/gradio_api/info').json() == dict(named_endpoints={}, unnamed_endpoints={})
    assert str(ROOT) not in answer.text and tempfile.gettempdir() not in answer.text


def test_bad_uploads_get_our_line(demo, uploads):
    page, url = demo
    number = functions(page, 'restore')[0]
    for name, told in (('text.png', 'is not an image'), ('cut.png', 'cannot decode image'), ('bomb.png', 'too many pixels')):
        success, output = call(url, number, 'pretraining.pth', upload(url, uploads[name]), 0.5, 0)
        assert not success and told in output['error'] and 'Traceback' not in json.dumps(output)


def test_two_users_at_once_get_what_each_gets_alone(demo, uploads):
    page, url = demo
    number, found = functions(page, 'restore')[0], {}
    files = {seed: upload(url, uploads['good.png']) for seed in (1, 2, 3)}

    def ask(seed):
        success, output = call(url, number, 'pretraining.pth', files[seed], 0.5, seed)
        assert success
        return content(url, output)

    alone = {seed: ask(seed) for seed in files}
    users = [threading.Thread(target=lambda seed=seed: found.update({seed: ask(seed)})) for seed in (3, 1, 2)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert found == alone and alone[1] != alone[2] and {len(one) for one in alone.values()} == {4}


def test_the_folder_is_private_and_gone_afterwards(monkeypatch):
    monkeypatch.setenv('GRADIO_SHARE', 'True')
    before = dict(os.environ), tempfile.gettempdir()
    with private_folder() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert 'GRADIO_SHARE' not in os.environ and os.environ['GRADIO_ANALYTICS_ENABLED'] == 'False'
        assert os.environ['GRADIO_TEMP_DIR'] == tempfile.gettempdir() == str(folder)
        (folder / 'left').touch()
    assert (dict(os.environ), tempfile.gettempdir()) == before and not folder.exists()


# ---------------------------------------------------------------------- the command


def test_without_gradio_one_line_names_the_extra(tool_here, monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    code, told = tool_here('tools/app.py', 'nowhere')
    assert code == 1 and told.startswith("error: usp app needs Gradio: pip install '.[app]' in the checkout of usp_mm")


def test_mistakes_are_told_before_a_model_is_loaded(tool_here, tmp_path):
    with socket.create_server(('127.0.0.1', 0)) as busy:
        port = busy.getsockname()[1]
        cases = [
            (['--port', port], f'--port {port} is in use on 127.0.0.1: give another one with --port'),
            (['--port', 70000], '--port 70000 must be from 1 to 65535'),
            (['--host', 'no.such.host.invalid'], "--host 'no.such.host.invalid' is no address of this machine"),
            (['--host', '192.0.2.1'], "--host '192.0.2.1' is no address of this machine"),
            (['--pictures', tmp_path / 'absent'], "absent' is no folder: give one with pictures"),
            (['--limit', 0], '--limit 0 must be 1 or more'),
        ]
        for words, told in cases:
            code, printed = tool_here('tools/app.py', 'nowhere', *words)
            assert code in (1, 2) and told in printed and 'Traceback' not in printed
        assert free_port('127.0.0.1', None) in PORTS


def test_ctrl_c_ends_it_and_leaves_nothing(tool_here, checkpoints, tmp_path, monkeypatch):
    answers = []

    class Interrupted(threading.Event):
        def wait(self, timeout=None):
            if timeout is None and threading.current_thread() is threading.main_thread() and not answers:
                answers.append(httpx.get(f'http://127.0.0.1:{port}').status_code)
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    port = free_port('127.0.0.1', None)
    monkeypatch.setattr('usp_mm.cli.app.threading', type('threading', (), {'Event': Interrupted}))
    code, told = tool_here('tools/app.py', checkpoints['pretraining'], '--port', port, '--device', 'cpu')
    assert (code, answers) == (0, [200])
    assert f'http://127.0.0.1:{port}  (Ctrl-C ends it)' in told and told.endswith('ended\n')
    assert list(tmp_path.iterdir()) == [] and free_port('127.0.0.1', port) == port


def test_the_state_of_old_visitors_is_dropped(demo, uploads, monkeypatch):
    page, url = demo
    states = page.state_holder
    assert states.capacity == SESSIONS == 100
    states.session_data.clear()  # of other tests
    monkeypatch.setattr(states, 'capacity', 2)
    for seed in range(4):
        assert call(url, functions(page, 'restore')[0], 'pretraining.pth', upload(url, uploads['good.png']), 0.5, seed)[0]
    assert len(states.session_data) == 2


def test_the_messages_of_old_visitors_are_dropped(demo, uploads, monkeypatch):
    page, url = demo
    kept = page._queue.pending_messages_per_session, page._queue.pending_event_ids_session
    for one in kept:
        assert (one.number, one.most) == (QUEUED, 2000) == (300, 2000)
        one.clear()  # of other tests
        monkeypatch.setattr(one, 'number', 2)
    page._queue.pending_messages_per_session['waiting'] = 'its messages'
    page._queue.pending_event_ids_session['waiting'] = {'an event'}
    for seed in range(4):
        assert call(url, functions(page, 'restore')[0], 'pretraining.pth', upload(url, uploads['good.png']), 0.5, seed)[0]
    assert all('waiting' in one and len(one) <= 3 for one in kept)
    page._queue.pending_event_ids_session['waiting'] = set()
    for seed in range(2):
        assert call(url, functions(page, 'restore')[0], 'pretraining.pth', upload(url, uploads['good.png']), 0.5, seed)[0]
    assert all('waiting' not in one and len(one) == 2 for one in kept)


def test_old_pictures_are_deleted_by_our_function(demo):
    from gradio import route_utils

    from usp_mm.compat import gradio as patches

    assert route_utils.delete_files_created_by_app is patches._delete_files
    assert route_utils.delete_files_on_schedule.__globals__['delete_files_created_by_app'] is patches._delete_files


def test_the_durations_of_old_requests_are_dropped(demo, uploads, monkeypatch):
    page, url = demo
    queue = page._queue
    assert queue.ANALYTICS_MAX_EVENTS == TIMED == 100
    monkeypatch.setattr(queue, 'ANALYTICS_MAX_EVENTS', 2)
    for seed in range(4):
        assert call(url, functions(page, 'restore')[0], 'pretraining.pth', upload(url, uploads['good.png']), 0.5, seed)[0]
    assert len(queue.event_analytics) == 2
