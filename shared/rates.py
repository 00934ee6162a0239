"""What callers have asked for in the last minute, counted in Redis: one count, whichever front door they come to.

A request has several subjects (its key, team, tenant, end user), each with limits of its own; all of them admit it or
none counts it. The window slides and is exact: no minute holds more than the limit. What it costs does not depend on
the limits, and requests that arrive together share a call. How it is counted is in `rates.lua`; whose limits there are
and what a refusal says is the front door's.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.errors import Unavailable
from shared.group_commit import Full, GroupCommit

PREFIX = "sluice:rate:"
"""What a subject's keys begin with; they expire when nothing in them counts any more."""

PATIENCE = 2.0
"""The seconds that a request waits to be counted."""


class Asked(NamedTuple):
    """What is asked of one subject, and what it may be asked for in a minute (0: any number)."""

    subject: str
    rpm: int
    tpm: int
    requests: int
    tokens: int


class Standing(NamedTuple):
    """How a subject stands afterwards: what counts of the last minute, the ms until nothing of it does.

    And the ms until there will be room for what was asked, as to requests and as to tokens; 0 where there was.
    """

    requests: int
    tokens: int
    full_ms: float
    requests_ms: float
    tokens_ms: float

    @property
    def wait_ms(self) -> float:
        """The ms until there will be room."""
        return max(self.requests_ms, self.tokens_ms)


class Rates:
    """Counts over one Redis client."""

    def __init__(self, redis: Redis, *, clock: Callable[[], float] | None = None) -> None:
        """Work over a client; without a `clock` (ms since 1970) it is Redis's own that counts."""
        self._script = redis.register_script(Path(__file__).with_suffix(".lua").read_text())
        self._clock = clock
        self._group: GroupCommit[Sequence[Asked], list[Standing]] = GroupCommit(self._run, most=100, waiting=2_000)

    async def ask(self, asked: Sequence[Asked]) -> list[Standing]:
        """Count a request with its subjects, if all have room for it; return how each stands, in order.

        It was admitted where none has to wait. Raises Unavailable where Redis does not answer soon.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._group.add(asked)
        except (RedisError, OSError, Full) as error:  # a TimeoutError is an OSError
            raise Unavailable("the count of your requests is not available") from error

    async def _run(self, asks: Sequence[Sequence[Asked]]) -> list[list[Standing]]:
        now = "" if self._clock is None else f"{self._clock():.3f}"
        rows = [[tuple(one) for one in asked] for asked in asks]
        async with asyncio.timeout(PATIENCE):
            found = await self._script(keys=[PREFIX], args=[now, orjson.dumps(rows)])
        return [[Standing(*one) for one in standings] for standings in orjson.loads(found)]
