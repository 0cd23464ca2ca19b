"""A file backend that writes files completely or not at all."""

from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from usp_mm.fileio.atomic import write_whole


class AtomicLocalBackend(LocalBackend):
    """LocalBackend that writes a temporary file beside the target, syncs it and renames it.

    A kill, a full disk or Ctrl-C while a checkpoint is written leaves the previous file intact.
    Select it with `backend_args=dict(backend='atomic')` of CheckpointHook.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path) as file:
            file.write(obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        self.put(obj.encode(encoding), filepath)


register_backend('atomic', AtomicLocalBackend, force=True)
