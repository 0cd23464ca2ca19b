"""Serve the demo: on this machine only unless asked otherwise, without telemetry, and without leaving files."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import gradio as gr
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from usp_mm.compat.gradio import fewer_queued_sessions, old_files_deleted

from .build import CSS
from .pictures import MAX_FILE

LOCALHOST = '127.0.0.1'
#: Ports that are tried if none is asked for.
PORTS = range(7860, 7960)
#: Visitors whose state Gradio keeps, the latest ones; each costs tens of KiB, and Gradio would keep 10,000.
SESSIONS = 100
#: Requests of which Gradio keeps the duration, and makes a table after each; it would keep 10,000.
TIMED = 100
#: Sessions of which Gradio keeps queued messages; it would keep 2,000, and the numbers of their requests for ever.
QUEUED = 300
_WITHIN = "'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
#: The browser refuses to load anything from elsewhere, whatever a library's page asks for.
POLICY = f"default-src {_WITHIN}; frame-ancestors 'self'; base-uri 'self'; form-action 'self'"
_HEADERS = {'content-security-policy': POLICY, 'referrer-policy': 'no-referrer', 'x-content-type-options': 'nosniff'}


class SafeHeaders:
    """ASGI middleware that adds headers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message['type'] == 'http.response.start':
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self.app(scope, receive, send_with_headers if scope['type'] == 'http' else send)


@contextmanager
def private_folder() -> Iterator[Path]:
    """Keep all temporary files of the demo in a folder that only this user can read, and delete it at the end.

    Gradio's own environment variables, which could open the server to others, do not apply inside.
    """
    before = {name: value for name, value in os.environ.items() if name.startswith('GRADIO_')}
    with TemporaryDirectory(prefix='usp-app-', ignore_cleanup_errors=True) as folder:
        temporary = tempfile.tempdir
        try:
            for name in before:
                del os.environ[name]
            os.environ.update(GRADIO_TEMP_DIR=folder, GRADIO_ANALYTICS_ENABLED='False', GRADIO_ANALYTICS_MAX_EVENTS=str(TIMED))
            tempfile.tempdir = folder
            yield Path(folder)
        finally:
            tempfile.tempdir = temporary
            for name in [name for name in os.environ if name.startswith('GRADIO_')]:
                del os.environ[name]
            os.environ.update(before)


def free_port(host: str, port: int | None) -> int:
    """The port asked for, or else the first free one from 7860.

    Raises:
        OSError: The port is in use, or the host is not an address of this machine.
    """
    for one in PORTS if port is None else [port]:
        try:
            with socket.create_server((host, one), family=socket.AF_INET6 if ':' in host else socket.AF_INET):
                return one
        except PermissionError as error:
            raise OSError(f'--port {one}: this user may not use it, give one from 1024 to 65535') from error
        except OSError as error:
            if not isinstance(error, socket.gaierror) and error.errno in _IN_USE:
                continue
            raise OSError(
                f"--host '{host}' is no address of this machine ({error.strerror}): give 127.0.0.1 or 0.0.0.0"
            ) from error
    taken = f'--port {port} is' if port is not None else f'ports {PORTS[0]} to {PORTS[-1]} are'
    raise OSError(f'{taken} in use on {host}: give another one with --port')


_IN_USE = (98, 48)  # Linux, macOS


def launch_page(page: gr.Blocks, host: str, port: int) -> None:
    """Start the server in threads of this process; `page.close()` ends it."""
    font = ['system-ui', 'sans-serif']  # Gradio's own would come from Google
    fewer_queued_sessions(page, QUEUED)
    old_files_deleted()
    page.launch(
        server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, share=False, inbrowser=False,
        allowed_paths=[], max_file_size=MAX_FILE, footer_links=[], run_history=False, enable_monitoring=False, ssr_mode=False,
        state_session_capacity=SESSIONS, pwa=False, mcp_server=False, css=CSS,
        theme=gr.themes.Soft(font=font, font_mono=['ui-monospace', 'monospace']),
        app_kwargs=dict(middleware=[Middleware(SafeHeaders)], docs_url=None, redoc_url=None, openapi_url=None),
    )  # fmt: skip
