"""Ending when told to. Loops that talk to Redis ask here once a round."""

import asyncio


def heed() -> None:
    """Raise CancelledError where the current task was asked to end and went on.

    On Python 3.11 `asyncio.wait_for`, with which redis-py sends, returns its result when the cancellation comes in the
    moment it is done (https://github.com/python/cpython/issues/86296): the request to end is lost, but still counted.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
