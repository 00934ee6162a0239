"""The file of a batch, read: its lines as jobs, held a chunk at a time."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import orjson

from gateway_api.batch_lines import Lines
from gateway_api.state import State
from shared.db import engine as db
from shared.db import files
from shared.db.batches import BatchRow
from shared.db.jobs import NewJob
from shared.errors import Fault
from shared.lines import lines
from shared.schemas import MOST_FAULTS, null_characters
from shared.storage.parts import Missing

CHUNK = 1_000
CHUNK_BYTES = 4 * 2**20
TOGETHER = 100
"""Lines that are read in one go: nobody else is served meanwhile."""

Read = list[tuple[str, NewJob]]
"""Jobs, each with what its line is called: its number."""


async def chunks(state: State, batch: BatchRow, reader: Lines) -> AsyncGenerator[tuple[Read, list[Fault]]]:
    """Yield a file's lines as jobs, and their faults, a bounded number at a time."""
    async with db.transaction(state.engine) as connection:
        file = await files.get(connection, batch.tenant_id, batch.input_file_id)
    if file is None:
        yield [], [Fault("input_file_id", "The file is no longer there.", "file_not_found")]
        return
    new: Read = []
    faults: list[Fault] = []
    size = count = 0
    pieces = _whole(state.storage.of(file.storage).read(file.id), file.bytes)
    try:
        async for number, line in lines(pieces, state.settings.max_body_bytes):
            count += 1
            if count > state.settings.max_file_lines:
                said = f"The file has more than {state.settings.max_file_lines:,} lines."
                yield [], [*faults, Fault("", said, "too_many_tasks")]
                return
            job = _job(reader, number, line)
            if isinstance(job, list):
                faults += job
            else:
                new.append((str(number), job))
                size += len(job.body)
            if count % TOGETHER == 0:
                await asyncio.sleep(0)  # others are served meanwhile
            if len(new) >= CHUNK or size >= CHUNK_BYTES or len(faults) >= MOST_FAULTS:
                yield new, faults
                new, faults, size = [], [], 0
    except Missing:
        faults.append(Fault("input_file_id", "The content of the file is no longer there.", "file_content_missing"))
    if new or faults:
        yield new, faults


async def _whole(pieces: AsyncIterator[bytes], size: int) -> AsyncIterator[bytes]:
    """Yield a file's content. Raises Missing where it is not all there: the file may have expired meanwhile."""
    async for piece in pieces:
        size -= len(piece)
        yield piece
    if size:
        raise Missing


def _job(reader: Lines, number: int, line: bytes | None) -> NewJob | list[Fault]:
    """Return a line as a job, or all that is wrong with it."""
    at = str(number)
    if line is None:
        return [Fault(at, "The line is longer than a request may be.", "invalid_json_line")]
    try:
        value = orjson.loads(line)
        faults = null_characters(value) if b"\\u0000" in line else []
    except (orjson.JSONDecodeError, RecursionError) as error:
        return [Fault(at, f"The line is not valid JSON: {error}", "invalid_json_line")]
    if not isinstance(value, dict):
        return [Fault(at, "The line is not a JSON object.", "invalid_json_line")]
    return [Fault(f"{at}.{one.param}", one.message, one.code) for one in faults] or reader.read(value, at)
