"""Download files from addresses, `https://…` or `hf://owner/name/file`, and keep them in the libraries' own caches.

Files of the Hugging Face hub are kept in huggingface_hub's cache (`HF_HOME`, `HF_ENDPOINT` and `HF_HUB_OFFLINE` apply), all
others in torch.hub's checkpoint folder (`TORCH_HOME`). This module does not read the contents of the files, and importing it
imports neither torch nor huggingface_hub.
"""

import glob
import hashlib
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlparse

from usp_mm.fileio.atomic import read_json, sha256, write_json

#: One slash is enough, because `pathlib.Path` turns the two slashes of an address into one.
_ADDRESS = re.compile(r'(https?|hf):/+(.+)', re.DOTALL)
#: Query parameters by which the hub and Dropbox are asked for the file itself.
_AS_A_FILE = ('download', 'dl', 'raw')
#: Seconds to wait for a server's first answer.
_SECONDS = 8.0
#: When a hub was asked, and why it gave no answer, or None; both are forgotten after so many seconds.
_SILENCE: dict[str, tuple[float, str | None]] = {}
_FORGOTTEN = 60.0
_SHA256 = re.compile(r'[0-9a-f]{64}')


class HubFile(NamedTuple):
    """A file in a model repository of the hub, or the whole repository if `file` is ''. `revision`: branch, tag or commit."""

    repo: str
    file: str
    revision: str | None = None


def is_address(path: str | Path) -> bool:
    """Whether `path` is an address (`https://…`, `http://…` or `hf://…`) rather than a local path."""
    return _ADDRESS.fullmatch(str(path)) is not None


def local_file(path: str | Path) -> Path:
    """Return the local file for a path or an address, downloading it if necessary; paths are returned unchanged.

    Raises:
        ValueError: The address names no file.
        FileNotFoundError: No such file exists at the address.
        ConnectionError: The address can't be reached and no local copy exists; the message says where to put one.
    """
    match = _ADDRESS.fullmatch(str(path))
    if match is None:
        return Path(path)
    scheme, rest = match.groups()
    return hub_file(hub_address(rest)) if scheme == 'hf' else url_file(f'{scheme}://{rest}')


def hub_address(text: str, revision: str | None = None) -> HubFile:
    """Split 'owner/name/folder/file' or 'owner/name@revision/file' into its parts.

    Raises:
        ValueError: The owner or the name is missing.
    """
    parts = text.removeprefix('hf://').strip('/').split('/')
    if len(parts) < 2 or not all(parts):
        raise ValueError(f"'{text}' is no address on the hub: expected owner/name or owner/name/file")
    name, _, noted = parts[1].partition('@')
    return HubFile(f'{parts[0]}/{name}', '/'.join(parts[2:]), revision or noted or None)


def hub_file(address: HubFile) -> Path:
    """Download one file of the hub into huggingface_hub's cache; an interrupted download continues where it stopped.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: As in `local_file`.
    """
    from huggingface_hub import hf_hub_download

    url = f'hf://{address.repo}/{address.file}'
    if not address.file:
        raise ValueError(f"'hf://{address.repo}' names no file: add its name, hf://{address.repo}/FILE")
    with explained(url, f'`hf download {address.repo} {address.file} --local-dir DIR`, and give DIR/{address.file}'):
        offline = hub_silence() is not None
        found = Path(hf_hub_download(address.repo, address.file, revision=address.revision, local_files_only=offline))
    blob = found.resolve().name  # the cache names large files by their SHA-256
    _log(url, found, blob if _SHA256.fullmatch(blob) else sha256(found))
    return found


def hub_folder(address: HubFile, patterns: list[str]) -> Path:
    """Download the files of a repository that match `patterns` into huggingface_hub's cache, and return its folder.

    Raises:
        FileNotFoundError, ConnectionError: As in `local_file`.
    """
    from huggingface_hub import snapshot_download

    url = f'hf://{address.repo}'
    with explained(url, f'`hf download {address.repo} --local-dir DIR`, and give DIR'):
        offline = hub_silence() is not None
        kept = snapshot_download(address.repo, revision=address.revision, allow_patterns=patterns, local_files_only=offline)
        return Path(kept)


def hub_listing(address: HubFile) -> list[str]:
    """Names of all files in a repository, or an empty list if the hub can't be reached."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if hub_silence() is not None:
        return []
    try:
        return HfApi().list_repo_files(address.repo, revision=address.revision)
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError):
        return []


def hub_silence() -> str | None:
    """Why the hub gives no answer within 8 seconds, or None; huggingface_hub itself tries again for over a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return None
    asked, reason = _SILENCE.get(constants.ENDPOINT, (float('-inf'), None))
    if time.monotonic() - asked > _FORGOTTEN:
        reason = _ask(constants.ENDPOINT)
        _SILENCE[constants.ENDPOINT] = time.monotonic(), reason
    return reason


def hub_repo_kept(repo: str | None) -> bool:
    """Whether huggingface_hub's cache has anything of a model repository."""
    from huggingface_hub import constants

    return repo is not None and Path(constants.HF_HUB_CACHE, f'models--{repo.replace("/", "--")}').is_dir()


def _ask(endpoint: str) -> str | None:
    """Ask in a thread, since no time limit holds for the look-up of a name."""
    found: list[str | None] = []

    def ask() -> None:
        import httpx
        from huggingface_hub import get_session

        try:
            get_session().head(endpoint, timeout=_SECONDS)
        except httpx.HTTPError as error:
            found.append(f'{type(error).__name__}: {_first_line(error)}{_through_proxy()}')
        else:
            found.append(None)

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return found[0] if found else f'no answer within {_SECONDS:.0f} s{_through_proxy()}'


def _through_proxy() -> str:
    from urllib.request import getproxies

    return ', through the proxy that HTTPS_PROXY or ALL_PROXY sets' if getproxies().keys() & {'https', 'all'} else ''


@contextmanager
def explained(url: str, instead: str) -> Iterator[None]:
    """Turn the hub's errors in the block into one-line errors that name the address and say what to do `instead`."""
    import httpx
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    offline = f'fetch it where there is a network, {instead}'
    try:
        yield
    except HFValidationError as error:
        raise ValueError(f"'{url}' is no address on the hub: {error}") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.TransportError) as error:
        reason = hub_silence() or type(error.__cause__ or error).__name__
        raise ConnectionError(f"'{url}' can't be reached ({reason}), and there is no copy of it here: {offline}") from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"'{url}': no such repository, or a private one: check the name, or log in with `hf auth login`"
        ) from error
    except (EntryNotFoundError, RevisionNotFoundError) as error:
        raise FileNotFoundError(f"'{url}': no such file or revision in the repository: check the name") from error
    except HfHubHTTPError as error:
        raise ConnectionError(f"'{url}' can't be fetched ({_first_line(error)}): try again, or {offline}") from error


def url_file(url: str) -> Path:
    """Download a file from the web into torch.hub's checkpoint folder, under its own name.

    If the folder already holds a file of that name from another address, that file is kept, and the new one gets eight hex
    digits of its address's SHA-256 before the suffix. A file that the user placed there by hand is used as it is.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: As in `local_file`.
    """
    name = Path(unquote(urlparse(url).path)).name
    if not name:
        raise ValueError(f"'{url}' names no file: give the address of one")
    from filelock import FileLock
    from torch import hub

    folder = Path(hub.get_dir(), 'checkpoints')
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f'.{name}.lock'):  # other processes wait, and find it
        path = folder / name
        meant = _meant(url)
        if (_noted(path) or {'url': meant}).get('url') != meant:
            path = path.with_name(f'{path.stem}-{hashlib.sha256(meant.encode()).hexdigest()[:8]}{path.suffix}')
        noted = _noted(path)
        if not path.is_file():
            _download(url, path)
            noted = dict(url=meant, sha256=sha256(path))
            write_json(_note(path), noted)
        elif noted is None:
            _info(f"'{path}' was there before, and is taken for '{url}'")
            noted = dict(sha256=sha256(path))
    _log(url, path, noted['sha256'])
    return path


def _meant(url: str) -> str:
    """The address without its fragment and without query parameters that only ask for the file instead of a web page."""
    parts = urlparse(url)
    query = [(key, value) for key, value in parse_qsl(parts.query, keep_blank_values=True) if key not in _AS_A_FILE]
    return parts._replace(query=urlencode(query), fragment='').geturl()


def _note(path: Path) -> Path:
    return path.with_name(f'.{path.name}.json')


def _noted(path: Path) -> dict | None:
    """The recorded origin of a file; None if the file does not exist or was not downloaded by `url_file`."""
    return read_json(_note(path)) if path.is_file() else None


def _download(url: str, path: Path) -> None:
    """Download with torch.hub to a temporary name, and rename the file once its length is what the server announced."""
    from urllib.request import Request, urlopen

    from torch import hub

    partial = path.with_name(f'.{path.name}.part')
    for left in path.parent.glob(f'{glob.escape(partial.name)}*'):  # of a killed download; ours, by the lock
        left.unlink()
    instead = f"fetch it where there is a network, and put it at '{path}'"
    try:
        with urlopen(Request(url, headers={'User-Agent': 'torch.hub'}), timeout=_SECONDS) as answer:  # as torch.hub asks
            length = answer.headers.get('Content-Length')
        _info(f"downloading '{url}' to '{path}'")
        hub.download_url_to_file(url, str(partial))
        if length is not None and partial.stat().st_size != int(length):
            raise ConnectionError(f'{partial.stat().st_size:,} of {int(length):,} bytes came')
        partial.replace(path)
    except OSError as error:  # urllib's are
        status = getattr(error, 'code', None)
        if status in (401, 403, 404, 410):
            raise FileNotFoundError(f"'{url}': the server has no such file for you ({status}): check the address") from error
        if not isinstance(error, ConnectionError | TimeoutError) and getattr(error, 'reason', None) is None:
            raise  # of the disk
        raise ConnectionError(f"'{url}' can't be fetched ({_first_line(error)}{_through_proxy()}): {instead}") from error
    finally:
        partial.unlink(missing_ok=True)


def _log(url: str, path: Path, digest: str) -> None:
    _info(f"'{url}' is '{path}', sha256 {digest}")


def _info(line: str) -> None:
    from mmengine.logging import MMLogger

    MMLogger.get_current_instance().info(line)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
