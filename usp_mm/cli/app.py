"""A local web demo of trained models: restore, generate, classify, segment, find neighbours.

usp app my-encoder
usp app my-encoder my-classifier --pictures ~/photos
usp app sit-scratch sit-usp                          # two generators side by side
usp app work_dirs/RUN --port 8000

A FOLDER is what `usp_mm.from_pretrained` takes (a model folder, a checkpoint, an address), or the work folder of a training.
The demo shows a tab for each thing that the models can do. Only this machine can reach it; --host 0.0.0.0 lets others in.
Ctrl-C ends it.
"""

import argparse
import importlib.util
import os
import signal
import threading
from pathlib import Path

from usp_mm.config.arguments import ToolParser
from usp_mm.fileio.outputs import check_counts
from usp_mm.runtime.processes import stop_on


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('folders', nargs='+', metavar='FOLDER', help='models, each once')
    parser.add_argument('--pictures', type=Path, metavar='DIR', help='pictures among which to find neighbours')
    parser.add_argument('--limit', type=int, default=2000, help='most pictures of DIR, evenly spaced (default: %(default)s)')
    parser.add_argument('--host', default='127.0.0.1', help='address to listen on (default: %(default)s, only this machine)')
    parser.add_argument('--port', type=int, help='default: the first free one from 7860')
    parser.add_argument('--device', help='default: the GPU, else the CPU')
    args = parser.parse_args()
    if args.port is not None and not 1 <= args.port <= 65535:
        parser.error(f'--port {args.port} must be from 1 to 65535')
    return args


def main() -> None:
    args = parse_args()
    check_counts(args, 'limit')
    if importlib.util.find_spec('gradio') is None:
        raise ImportError("usp app needs Gradio: pip install '.[app]' in the checkout of usp_mm")
    if args.pictures is not None and not args.pictures.is_dir():
        raise FileNotFoundError(f"--pictures '{args.pictures}' is no folder: give one with pictures")
    stop_on(signal.SIGTERM, signal.SIGHUP)
    serve(args)


def serve(args: argparse.Namespace) -> None:
    from usp_mm.app.server import free_port, launch_page, private_folder

    port = free_port(args.host, args.port)
    from usp_mm.app.build import build_app
    from usp_mm.app.event_handlers import in_use
    from usp_mm.app.models import load_models
    from usp_mm.app.neighbours import PictureFolder

    pictures = PictureFolder(args.pictures, args.limit) if args.pictures else None
    models = load_models(args.folders, args.device)
    with private_folder():
        page = build_app(models, pictures)
        try:
            launch_page(page, args.host, port)
            print(f'http://{args.host}:{port}  (Ctrl-C ends it)', flush=True)
            threading.Event().wait()
        except KeyboardInterrupt:  # or a signal of `stop_on`
            print('\nended', flush=True)
        finally:
            page.close(verbose=False)
    if in_use():
        os._exit(0)  # otherwise Python would wait for the thread that samples, which may take minutes
