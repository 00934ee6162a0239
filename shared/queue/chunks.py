"""The chunks of streamed answers on their way from a worker to whoever reads: a bounded Redis stream a job.

An entry's id is `ATTEMPT-N`, where N is the number of its last chunk in that attempt, counted from 1; so a reader knows
where it is, whether something is missing, and that another attempt has begun. `ATTEMPT-0` says that the attempt began.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self
from uuid import UUID

import orjson
from redis.asyncio import Redis

MOST_ENTRIES = 20_000
KEPT_SECONDS = 900
"""How long the chunks can be read after the last of them."""
_PAGE = 500


class Position(NamedTuple):
    """A place in a job's chunks: after chunk `number` of an attempt."""

    attempt: int = 0
    number: int = 0

    def __str__(self) -> str:
        return f"{self.attempt}-{self.number}"

    @classmethod
    def parse(cls, shown: str) -> Self | None:
        """Return the position that was shown as a string, None for anything else."""
        attempt, dash, number = shown.partition("-")
        if not (dash and attempt.isascii() and attempt.isdigit() and number.isascii() and number.isdigit()):
            return None
        return cls(int(attempt), int(number)) if max(len(attempt), len(number)) < 10 else None


@dataclass(frozen=True, slots=True)
class Piece:
    """One chunk, at its position; `chunk` is None where all that is said is that the attempt began."""

    at: Position
    chunk: dict[str, Any] | None


def channel(id_: UUID) -> str:
    """Return the channel on which the arrival of a job's chunks is announced."""
    return f"sluice:chunks:{id_.hex}"


def _key(id_: UUID) -> str:
    return f"sluice:stream:{id_.hex}"


class Chunks:
    """Writes and reads chunks. Every method may raise `RedisAway` errors."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def write(self, id_: UUID, at: Position, chunks: Sequence[dict[str, Any]]) -> None:
        """Append chunks, the last of which is at `at`, and wake the readers."""
        async with self._redis.pipeline(transaction=False) as pipe:
            entry: dict[Any, Any] = {b"c": orjson.dumps(chunks)}
            pipe.xadd(_key(id_), entry, id=str(at), maxlen=MOST_ENTRIES, approximate=True)
            pipe.expire(_key(id_), KEPT_SECONDS)
            pipe.publish(channel(id_), b"")
            await pipe.execute()

    async def read(self, id_: UUID, after: Position) -> list[Piece]:
        """Return what came after a position, as far as it is there; ask again until nothing comes."""
        entries = await self._redis.xrange(_key(id_), min=f"({after}", count=_PAGE)
        pieces = []
        for shown, entry in entries:
            last = Position.parse(shown.decode())
            if last is None:
                continue
            chunks = orjson.loads(entry[b"c"])
            if not chunks:
                pieces.append(Piece(last, None))
            first = last.number - len(chunks) + 1
            pieces += [
                Piece(Position(last.attempt, number), chunk)
                for number, chunk in enumerate(chunks, first)
                if (last.attempt, number) > after
            ]
        return pieces


def follows(at: Position, after: Position) -> bool:
    """Tell whether nothing is missing between two positions."""
    return at.number == (after.number + 1 if at.attempt == after.attempt else 0)
