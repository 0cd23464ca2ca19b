"""Patches of Gradio, which `usp_mm.app.server` applies when it serves a page."""

import os
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any


class LatestSessions(OrderedDict[str, Any]):
    """What is kept by session, of the latest `number` ones, and of those that wait for an answer."""

    def __init__(self, number: int, most: int, waits: Callable[[str], bool]) -> None:
        super().__init__()
        self.number, self.most, self._waits = number, most, waits

    def __setitem__(self, session: str, value: Any) -> None:
        super().__setitem__(session, value)
        self.move_to_end(session)
        older = list(self)[: max(0, len(self) - self.number)]
        for old in [one for one in older if not self._waits(one)]:
            del self[old]
        while len(self) > self.most:
            self.popitem(last=False)


def fewer_queued_sessions(page: Any, number: int) -> None:
    """Let the queue of a page keep what it notes of the latest `number` sessions, and of those that wait for an answer.

    Reason: Gradio keeps the messages of 2,000 sessions, 3.2 KiB each, and the event numbers of all sessions for ever.
    Delete when: Gradio drops both when a session has its answer.

    Args:
        page: `gradio.Blocks` before its launch.
        number: 1 or more.
    """
    queue = page._queue
    names = ('pending_messages_per_session', 'pending_event_ids_session')
    most = max(number, queue.pending_messages_per_session.max_size)
    for name in names:
        setattr(queue, name, LatestSessions(number, most, lambda session: bool(queue.pending_event_ids_session.get(session))))


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
