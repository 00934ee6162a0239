"""Letting jobs go that waited for others of their batch: their bodies are filled in, and they stand in the queue.

Who ends the last job that one waits for says so; where that is not heard, we look for ourselves.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any
from uuid import UUID

import orjson
import structlog

from shared import pipelines, tokens
from shared.cancellation import heed
from shared.commit import commit
from shared.db import dependencies
from shared.db import engine as db
from shared.db.dependencies import Filled
from shared.db.transitions import Transition, ended_queued
from shared.errors import ErrorKind, ProviderError, Unavailable
from shared.queue import LET_GO_WAKE, Queue, RedisAway
from shared.queue.entries import Entry
from workers.finish import error_json

log = structlog.get_logger(__name__)

AT_ONCE = 200
MOST_TOGETHER = 32 * 2**20
"""Bytes of answers that are held at once; more where one job alone waited for more."""

LOOK_SECONDS = 1.0
_BYTES_PER_TOKEN = 4
_ANY_MODEL = ""


async def watch(engine: db.Engine, queue: Queue, *, most_bytes: int) -> None:
    """Let jobs go until cancelled; a body that is filled in may have so many bytes."""
    while True:
        heed()
        try:
            if not await let_go(engine, queue, most_bytes=most_bytes):
                await queue.woken(LET_GO_WAKE, seconds=LOOK_SECONDS)
        except (Unavailable, *RedisAway) as error:
            log.warning("dependants.waited", error=str(error))
            await asyncio.sleep(LOOK_SECONDS)
        except Exception:
            log.exception("dependants.crashed")
            await asyncio.sleep(LOOK_SECONDS)


async def let_go(engine: db.Engine, queue: Queue, *, most_bytes: int) -> int:
    """Let go, or end, jobs that wait for nobody any more; return how many there were."""
    async with db.transaction(engine) as connection:
        rows = _together(await dependencies.ready(connection, limit=AT_ONCE))
        wanted = [row.id for row in rows if not row.cancelling and row.failed is None and row.bytes <= most_bytes]
        sent = await dependencies.templates(connection, wanted)
        answers: dict[UUID, list[Any]] = defaultdict(list)
        for answer in await dependencies.answers(connection, wanted):
            answers[answer.job_id].append(answer)
        filled, ended = await asyncio.to_thread(_sorted, rows, sent, answers, most_bytes)
        freed = await dependencies.let_go(connection, filled) if filled else []
    if ended:
        await commit(engine, queue, ended)
    if freed:
        await queue.enqueue([Entry.of(row) for row in freed])
    return len(rows)


def _together(rows: Sequence[Any]) -> list[Any]:
    """Return the first of the jobs, as far as their answers may be held together."""
    sizes = accumulate(row.bytes for row in rows)
    return [
        row for number, (row, size) in enumerate(zip(rows, sizes, strict=True)) if not number or size <= MOST_TOGETHER
    ]


def _sorted(
    rows: Sequence[Any], sent: Mapping[UUID, bytes], answers: Mapping[UUID, Sequence[Any]], most_bytes: int
) -> tuple[list[Filled], list[Transition]]:
    """Return those of the jobs that can run, filled in, and how the others end."""
    filled, ended = [], []
    for row in rows:
        if row.cancelling:  # whoever cancels it has only not come to this one yet
            ended.append(ended_queued(row, "cancelled"))
            continue
        try:
            filled.append(_filled(row, sent.get(row.id), answers.get(row.id, ()), most_bytes))
        except _Wrong as wrong:
            error = error_json(ProviderError(ErrorKind.DEPENDENCY_FAILED, str(wrong)), retriable=True)
            ended.append(ended_queued(row, "failed", error=error))
    return filled, ended


class _Wrong(Exception):
    """Why a job cannot run."""


def _filled(row: Any, sent: bytes | None, answers: Sequence[Any], most_bytes: int) -> Filled:
    """Return a job's body filled in, and what it comes to with whatever model it goes to. Raises _Wrong."""
    if row.failed is not None:
        raise _Wrong(f"The job waited for {row.failed!r}, which was not completed.")
    outputs = {one.custom_id: pipelines.output(one.url, one.body) for one in answers if one.custom_id is not None}
    body = None if sent is None else pipelines.filled(sent, outputs, most=most_bytes)
    if body is None:
        raise _Wrong(f"With the answers that the job waited for, its body has more than {most_bytes:,} bytes.")
    bound = row.input_bound
    if bound is not None:
        bound = tokens.most_input(orjson.loads(body), {row.upstream_model, _ANY_MODEL})
    return Filled(row.id, body, len(body) // _BYTES_PER_TOKEN, bound)
