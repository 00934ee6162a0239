"""Following a job: its states and the chunks of its answer, in order, from any position, until it has ended."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from gateway_api.state import State
from shared.db import engine as db
from shared.db import jobs
from shared.db.jobs import JobRow
from shared.errors import Unavailable
from shared.lifecycle import TERMINAL
from shared.queue import RedisAway
from shared.queue.chunks import Piece, Position, follows

OFTEN = 10
LOOK_SECONDS = 1.0
"""How long until we look for ourselves: an announcement may be lost, and that an attempt began is not announced."""


@dataclass(frozen=True, slots=True)
class Restarted:
    """What came of earlier attempts is void: another one answers from the beginning."""

    at: Position


@dataclass(frozen=True, slots=True)
class Missing:
    """Chunks were lost on their way; the job's result will hold them."""


@dataclass(frozen=True, slots=True)
class Stand:
    """How the job stands now; `row` has its result where it has ended."""

    row: JobRow
    ended: bool


Step = Stand | Piece | Restarted | Missing
Steps = AsyncGenerator[Step | None, None]
BEGINNING = Position()


async def follow(state: State, tenant: str, id_: UUID, *, after: Position = BEGINNING, status: str = "") -> Steps:
    """Yield the steps of a tenant's job after a position and a status; the last is how it ended.

    Yields None whenever nothing happened for `LOOK_SECONDS`, and nothing at all where there is no such job.
    """
    at, row, idle = after, None, 0
    async with state.waiters.following(id_) as wake:
        wake.ended = True  # look first
        while True:
            if wake.ended:
                wake.ended = False
                row = await _read(state, tenant, id_, row)
                if row is None:
                    return
                if row.status != status and row.status not in TERMINAL:
                    status = row.status
                    yield Stand(row, ended=False)
            while pieces := await _pieces(state, id_, at):
                for piece in pieces:
                    if not follows(piece.at, at):
                        yield Missing()
                    if piece.at.attempt != at.attempt and at.number:
                        yield Restarted(piece.at)
                    at = piece.at
                    if piece.chunk is not None:
                        yield piece
                    else:
                        wake.ended = True  # an attempt has begun: the row has changed
            if row is not None and row.status in TERMINAL:
                yield Stand(row, ended=True)
                return
            if wake.ended:
                continue
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await wake.wait()
            except TimeoutError:
                # Many may follow for long: who has waited for long looks less often.
                idle += 1
                wake.ended = idle < OFTEN or idle % OFTEN == 0
                yield None
            wake.clear()


async def _read(state: State, tenant: str, id_: UUID, known: JobRow | None) -> JobRow | None:
    """Return the job as it is now, or as it was known while Postgres is away: who follows it waits for that too."""
    try:
        async with db.transaction(state.engine) as connection:
            return await jobs.get(connection, tenant, id_)
    except Unavailable:
        if known is None:
            raise
        return known


async def _pieces(state: State, id_: UUID, after: Position) -> list[Piece]:
    with suppress(*RedisAway):
        return await state.queue.chunks.read(id_, after)
    return []
