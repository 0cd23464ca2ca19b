"""The parts of dev/soak.py without a training: many requests to `usp app`, and a latent cache of many samples."""

import json
import math
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from soak_memory import ask

ROOT = Path(__file__).resolve().parent.parent
#: Different pictures of a cache; the others are further names of these.
DISTINCT = 1000
_PORT = 7959
#: Seconds after which the demo deletes pictures, here: a run is then long enough to see that their number stays the same.
_KEPT = 30


def serve(
    folder: Path, requests: int, every: int = 10, trace: bool = False, seconds: float = math.inf
) -> list[dict[str, float]]:
    """Send pictures to the demo of a toy encoder, in a session of its own each, and fetch the restored ones.

    With `trace`, `app-growth.json` tells which lines of code have allocated what is kept of the latter half of the requests.

    Returns:
        What the server uses after each `every` requests: 'iteration', 'memory' and 'cpu' as in `soak.Measures`, and so on.
    """
    _find_test_helpers()
    import httpx
    from helpers.trained_files import picture, trained

    model = trained('pretraining', folder / 'vae', folder / 'pretraining.pth')
    picture(folder / 'good.png')
    url = f'http://127.0.0.1:{_PORT}'
    asked = folder / 'app.socket'
    command = [sys.executable, str(ROOT / 'dev/soak_memory.py'), str(asked), str(ROOT / 'tools/app.py')]
    command += [str(model), '--port', str(_PORT), '--device', 'cpu']
    with (folder / 'app.log').open('w') as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, 'SOAK_KEPT': str(_KEPT)})
    rows = []
    try:
        with httpx.Client(base_url=url, timeout=120) as client:
            number = _restoring(client, server)
            before, began = _usage(server.pid)['cpu'], time.perf_counter()
            end = began + seconds
            for request in range(1, requests + 1):
                _restore(client, number, model.name, folder / 'good.png', seed=request)
                if request % every == 0:
                    found, wall = _usage(server.pid), time.perf_counter()
                    cpu = found.pop('cpu')
                    used = {'cpu': (cpu - before) / every, 'wall': (wall - began) / every}
                    rows.append({'iteration': request, **found, **ask(asked), **used})
                    before, began = _usage(server.pid)['cpu'], time.perf_counter()
                if time.perf_counter() > end:
                    break
                if trace and request in (requests // 2, requests):
                    (folder / 'app-growth.json').write_text(json.dumps(ask(asked, 'growth'), indent=1))
    finally:
        server.terminate()
        server.wait(30)
    return rows


def _find_test_helpers() -> None:
    for folder in (str(ROOT / 'tests'), str(ROOT / 'tests/test_datasets')):
        if folder not in sys.path:
            sys.path.insert(0, folder)


def _restoring(client: Any, server: subprocess.Popen) -> int:
    """Wait for the server; the number of the event that restores a picture."""
    import httpx

    deadline = time.monotonic() + 180
    while True:
        try:
            events = client.get('/config').raise_for_status().json()['dependencies']
        except httpx.HTTPError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return next(event['id'] for event in events if len(event['inputs']) == len(event['outputs']) == 4)


def _restore(client: Any, number: int, model: str, path: Path, seed: int) -> None:
    with path.open('rb') as file:
        (stored,) = client.post('/gradio_api/upload', files={'files': (path.name, file)}).raise_for_status().json()
    session = uuid.uuid4().hex
    upload = dict(path=stored, orig_name=path.name, meta={'_type': 'gradio.FileData'})
    body = dict(data=[model, upload, 0.5, seed], fn_index=number, session_hash=session)
    client.post('/gradio_api/queue/join', json=body).raise_for_status()
    with client.stream('GET', '/gradio_api/queue/data', params=dict(session_hash=session)) as stream:
        for line in stream.iter_lines():
            message = json.loads(line[6:]) if line.startswith('data: ') else {}
            if message.get('msg') == 'process_completed':
                assert message['success'], message['output']
                pictures = [one['path'] for one in message['output']['data']]
                break
    assert all(client.get(f'/gradio_api/file={path}').raise_for_status().content for path in pictures)


def _usage(pid: int) -> dict[str, float]:
    process = Path('/proc', str(pid))
    times = (process / 'stat').read_text().rpartition(')')[2].split()
    return dict(
        memory=int((process / 'statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE'),
        open_files=len(os.listdir(process / 'fd')),
        threads=len(os.listdir(process / 'task')),
        cpu=(int(times[11]) + int(times[12])) / os.sysconf('SC_CLK_TCK'),
    )


def cache(folder: Path, samples: int, workers: int = 4) -> dict[str, float]:
    """Write, verify and read a cache of so many 4 × 4 × 4 latents, of pictures of 32 × 32 pixels; returns the seconds of each.

    The VAE takes averages, so that what is measured is the cache.
    """
    _find_test_helpers()
    from fake_codec import fake_codec, image_folder
    from mmengine.dataset import default_collate
    from torch.utils.data import DataLoader

    from usp_mm.datasets import LatentCacheDataset
    from usp_mm.datasets.latent_cache.plan import CacheSpec
    from usp_mm.datasets.latent_cache.verify import verify_cache
    from usp_mm.datasets.latent_cache.writer import write_cache

    pictures = folder / 'many'
    if not pictures.exists():
        image_folder(pictures, {'0': DISTINCT}, side=(32, 32))
        for i in range(DISTINCT, samples):
            (pictures / str(i // DISTINCT)).mkdir(exist_ok=True)
            os.link(pictures / '0' / f'{i % DISTINCT}.png', pictures / str(i // DISTINCT) / f'{i % DISTINCT}.png')
    out, seconds = folder / 'many-cache', {}
    began = time.perf_counter()
    write_cache(str(pictures), out, fake_codec(), CacheSpec(32, flip=False), batch_size=256, num_workers=2)
    seconds['write'] = time.perf_counter() - began
    began = time.perf_counter()
    assert verify_cache(out) == {}
    seconds['verify'] = time.perf_counter() - began
    began, seen = time.perf_counter(), 0
    data = LatentCacheDataset(str(out), flip=False)
    loader = DataLoader(data, batch_size=256, shuffle=True, num_workers=workers, collate_fn=default_collate)
    for batch in loader:
        if not seen:
            seconds['first batch'] = time.perf_counter() - began
        seen += len(batch['inputs'])
    assert seen == samples, f'{seen} of {samples} samples were read'
    seconds['read'] = time.perf_counter() - began
    return seconds
