"""A batch's output and error files: its ended jobs as lines of OpenAI's format, made as they are read.

They are there while the batch runs: a file read then has what has ended until then.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import orjson

from gateway_api.state import State
from shared import public
from shared.db import batch_lines
from shared.db import engine as db

PAGE = 500


async def pieces(state: State, tenant: str, batch_id: UUID, *, errors: bool, in_order: bool) -> AsyncIterator[bytes]:
    """Yield the lines of a tenant's batch, many at once, in the order they ended, or `in_order` of the batch's own."""
    which: batch_lines.Which = "errors" if errors else "output"
    if in_order:
        async with db.transaction(state.engine) as connection:
            left = list(await batch_lines.in_order(connection, tenant, batch_id, which=which))[::-1]
        while left:
            async with db.transaction(state.engine) as connection:
                rows = await batch_lines.of(connection, tenant, left[: -PAGE - 1 : -1])
            reached = rows[-1].id if rows else left[-PAGE:][0]  # none is there that has been restarted meanwhile
            while left and left[-1] <= reached:
                left.pop()
            yield _lines(rows)
        return
    ended = 0
    while True:
        async with db.transaction(state.engine) as connection:
            rows = await batch_lines.ended(connection, tenant, batch_id, after=ended, limit=PAGE, which=which)
        if not rows:
            return
        ended = rows[-1].batch_sequence
        yield _lines(rows)


async def size(connection: db.Connection, tenant: str, batch_id: UUID, *, errors: bool) -> int:
    """Return how many bytes there are of it now."""
    return await batch_lines.size(connection, tenant, batch_id, errors=errors, widths=public.LINE_WIDTHS)


def _lines(rows: Sequence[Any]) -> bytes:
    return b"".join(orjson.dumps(public.output_line(row), option=orjson.OPT_APPEND_NEWLINE) for row in rows)
