"""Patches of Gradio, of the demo's own page alone: `usp_mm.app.server` applies them."""

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
