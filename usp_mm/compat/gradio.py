"""Patches of Gradio, which `usp_mm.app.server` applies when it serves a page."""

import os
import time
from typing import Any


def fewer_queued_sessions(page: Any, number: int) -> None:
    """Let the queue of a page keep what it notes of the latest `number` sessions.

    A session that waits for its answer while so many newer ones come is forgotten, so `number` exceeds what can wait.

    Reason: Gradio keeps the messages of 2,000 sessions, 3.2 KiB each, and the event numbers of all sessions for ever.
    Delete when: Gradio drops both when a session has its answer.

    Args:
        page: `gradio.Blocks` before its launch.
        number: 1 or more.
    """
    from gradio.utils import LRUCache

    queue = page._queue
    for name in ('pending_messages_per_session', 'pending_event_ids_session'):
        assert isinstance(getattr(queue, name), dict), name
        setattr(queue, name, LRUCache(number))


def old_files_deleted() -> None:
    """Replace the function that deletes the files of `delete_cache=(frequency, age)`.

    Reason: Gradio's raises "Set changed size during iteration" if a picture comes while it runs, and from then on no file is
    deleted; and of a file that two components know, one keeps the name for ever.
    Delete when: `gradio.route_utils.delete_files_created_by_app` iterates over copies and forgets files that are gone.
    """
    from gradio import route_utils

    route_utils.delete_files_created_by_app = _delete_files


def _delete_files(blocks: Any, age: float | None) -> None:
    """Delete the files of a page that changed more than `age` seconds ago, or all if None, but for those that it keeps."""
    kept = {file for component in blocks.blocks.values() for file in getattr(component, 'keep_in_cache', ())}
    for files in blocks.temp_file_sets:
        for file in set(files) - kept:
            try:
                if age is not None and time.time() - os.lstat(file).st_ctime <= age:
                    continue
                os.remove(file)
            except FileNotFoundError:  # another component knew it too
                pass
            files.discard(file)
