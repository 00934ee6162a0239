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
from shared.serving import closes

log = structlog.get_logger(__name__)

LONGEST_END_SECONDS = 2.0


class Relay:
    """The chunks of one attempt; `sent` counts them.

    Where it `holds_end`, what closes the answer waits for `release`: it may yet turn out not to fit.
    """

    def __init__(self, chunks: Chunks, id_: UUID, attempt: int, *, holds_end: bool = False) -> None:
        self._chunks = chunks
        self._id = id_
        self._at = Position(attempt, 0)
        self._pending: list[dict[str, Any]] = []
        self._holds_end = holds_end
        self._held: list[dict[str, Any]] = []
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
        if self._holds_end:
            closing = 0 if self._held else next((n for n, one in enumerate(chunks) if closes(one)), len(chunks))
            chunks, held = chunks[:closing], chunks[closing:]
            self._held += held
        self._pass_on(chunks)

    def release(self) -> None:
        """Pass on what closes the answer: it stands."""
        held, self._held, self._holds_end = self._held, [], False
        self._pass_on(held)

    def _pass_on(self, chunks: list[dict[str, Any]]) -> None:
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
