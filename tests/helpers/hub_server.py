"""A web server on this machine with a folder's files, at plain addresses and as the Hugging Face hub has them."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlparse

import pytest

COMMIT = '0123456789abcdef0123456789abcdef01234567'
REVISIONS = ('main', 'v1', COMMIT)
_MODEL = re.compile(r'/api/models/(?P<repo>[^/]+/[^/]+)(?:/(?P<what>revision|tree|preupload|commit)/(?P<revision>[^/]+).*)?')
_FILE = re.compile(r'/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)')


class HubServer:
    """`root/owner/name/file` is a file of the repository owner/name; what is pushed lands there, too.

    Attributes:
        url: of the server; `url/files/…` are files below `root`.
        asked: paths in the order of the requests.
        cut: if set, files end after so many bytes.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.asked, self.cut = root, [], None
        server = self

        class Handler(_Handler):
            hub = server

        self.http = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.url = f'http://127.0.0.1:{self.http.server_port}'
        self.thread = Thread(target=self.http.serve_forever, kwargs=dict(poll_interval=0.01), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Nothing answers any more."""
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer

    def log_message(self, *_: object) -> None:
        """Not to stderr."""

    def do_HEAD(self) -> None:
        self._get(body=False)

    def do_GET(self) -> None:
        self._get(body=True)

    def _get(self, body: bool) -> None:
        path = unquote(urlparse(self.path).path)
        self.hub.asked.append(path)
        if found := _MODEL.fullmatch(path):
            self._model(found, body)
        elif found := _FILE.fullmatch(path):
            self._file(self.hub.root / found['repo'] / found['file'], body, found['revision'])
        else:
            self._file(self.hub.root / path.removeprefix('/files/'), body)

    def _model(self, found: re.Match, body: bool) -> None:
        folder = self.hub.root / found['repo']
        if not folder.is_dir():
            return self._answer(404, {'error': 'no such repository'}, body, {'X-Error-Code': 'RepoNotFound'})
        if found['revision'] not in (None, *REVISIONS):
            return self._answer(404, {'error': 'no such revision'}, body, {'X-Error-Code': 'RevisionNotFound'})
        files = sorted(path for path in folder.rglob('*') if path.is_file())
        names = [str(path.relative_to(folder)) for path in files]
        if found['what'] == 'tree':
            return self._answer(200, [
                {'type': 'file', 'path': name, 'size': path.stat().st_size, 'oid': _etag(path)}
                for name, path in zip(names, files, strict=True)
            ], body)  # fmt: skip
        siblings = [{'rfilename': name} for name in names]
        return self._answer(200, {'id': found['repo'], 'sha': COMMIT, 'siblings': siblings}, body)

    def _file(self, path: Path, body: bool, revision: str | None = None) -> None:
        if revision not in (None, *REVISIONS):
            return self._answer(404, {'error': 'no such revision'}, body, {'X-Error-Code': 'RevisionNotFound'})
        if not path.is_file():
            repository = revision is not None and not path.parents[0].is_dir()
            code = 'RepoNotFound' if repository else 'EntryNotFound'
            return self._answer(404, {'error': 'no such file'}, body, {'X-Error-Code': code, 'X-Repo-Commit': COMMIT})
        content = path.read_bytes()
        self.send_response(200)
        self.send_header('Content-Length', str(len(content)))
        if revision is not None:
            self.send_header('ETag', f'"{_etag(path)}"')
            self.send_header('X-Repo-Commit', COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content[: self.hub.cut])
        return None

    def do_POST(self) -> None:
        path = unquote(urlparse(self.path).path)
        self.hub.asked.append(path)
        text = self.rfile.read(int(self.headers['Content-Length'] or 0)).decode()
        if path == '/api/repos/create':
            asked = json.loads(text)
            repo = f'{asked.get("organization")}/{asked["name"]}'
            (self.hub.root / repo).mkdir(parents=True, exist_ok=True)
            return self._answer(200, {'url': f'{self.hub.url}/{repo}'}, True)
        if path == '/api/validate-yaml':
            return self._answer(200, {'errors': [], 'warnings': []}, True)
        found = _MODEL.fullmatch(path)
        if found is None:
            return self._answer(404, {}, True)
        if found['what'] == 'preupload':
            asked = json.loads(text)['files']
            files = [{'path': file['path'], 'uploadMode': 'regular', 'shouldIgnore': False} for file in asked]
            return self._answer(200, {'files': files}, True)
        for line in map(json.loads, text.splitlines()):
            if line['key'] == 'file':
                target = self.hub.root / found['repo'] / line['value']['path']
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(base64.b64decode(line['value']['content']))
        commit = {'commitUrl': f'{self.hub.url}/{found["repo"]}/commit/{COMMIT}', 'commitOid': COMMIT, 'success': True}
        return self._answer(200, commit, True)

    def _answer(self, status: int, content: object, body: bool, headers: dict[str, str] | None = None) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(text)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(text)


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


@contextmanager
def local_hub(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The hub of huggingface_hub is a server with `root`, its cache and torch.hub's are below `cache`."""
    from huggingface_hub import constants

    server = HubServer(root)
    monkeypatch.setattr(constants, 'ENDPOINT', server.url)
    monkeypatch.setattr(
        constants, 'HUGGINGFACE_CO_URL_TEMPLATE', server.url + '/{repo_id}/resolve/{revision}/{filename}', raising=False
    )
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(cache / 'hub'))
    monkeypatch.setenv('TORCH_HOME', str(cache / 'torch'))
    try:
        yield server
    finally:
        server.stop()
