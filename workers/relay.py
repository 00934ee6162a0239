"""Passing a streamed answer on while it comes: chunks go to Redis as fast as Redis takes them, many at once if need be.

The call never waits for that. Where Redis is away chunks are left out; a reader sees that some are missing, and the
job's result is whole all the same.
"""

import asyncio
from typing import Any
from uuid import UUID

import structlog

from shared import ids
from shared.queue import RedisAway
from shared.queue.chunks import Chunks, Position

log = structlog.get_logger(__name__)

LONGEST_END_SECONDS = 2.0


class Relay:
    """The chunks of one attempt; `sent` counts them."""

    def __init__(self, chunks: Chunks, id_: UUID, attempt: int) -> None:
        self._chunks = chunks
        self._id = id_
        self._at = Position(attempt, 0)
        self._pending: list[dict[str, Any]] = []
        self.sent = 0
        self._writing: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Say that the attempt's answer begins: what readers had of an earlier attempt is void."""
        self._writing = asyncio.create_task(self._write([]))

    async def end(self) -> None:
        """Wait until all is written."""
        if self._writing is not None:  # an answer that is paid for does not wait long for a Redis that hangs
            await asyncio.wait([self._writing], timeout=LONGEST_END_SECONDS)

    def send(self, chunks: list[dict[str, Any]]) -> None:
        """Pass chunks on; returns at once."""
        self.sent += len(chunks)
        self._pending += chunks
        if self._writing is None and self._pending:
            self._writing = asyncio.create_task(self._write(self._taken()))

    def _taken(self) -> list[dict[str, Any]]:
        taken, self._pending = self._pending, []
        self._at = Position(self._at.attempt, self._at.number + len(taken))
        return taken

    async def _write(self, chunks: list[dict[str, Any]]) -> None:
        try:
            while True:
                await self._chunks.write(self._id, self._at, chunks)
                if not self._pending:
                    return
                chunks = self._taken()
        except RedisAway as error:  # its text quotes the command, and with it the answer
            log.warning("chunks.not_written", job=ids.show("job", self._id), error=type(error).__name__)
        finally:
            self._writing = None
