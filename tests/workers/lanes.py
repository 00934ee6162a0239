"""A lane on a clock of the test's own, a provider that keeps to its limits on it, and gateways that call it."""

import heapq
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Any
from uuid import UUID

import orjson
from redis.asyncio import Redis

from shared import ids, queue
from shared.allowance import allowances
from shared.limits import Spent
from shared.queue import Queue
from shared.queue.entries import Entry, Move, Proposal, Taken
from shared.queue.survey import LaneState
from shared.routing import Target

START = 1_800_000_000_000.0
TARGET = Target("p", "m")

Limits = dict[str, Any] | list[Any]
"""The limits of one key named `k`, or whole deployments: `(key, weight, limits, mark)`."""


def deployments(limits: Limits) -> bytes:
    """Return limits as `deployments_json` does."""
    return orjson.dumps({"*": limits if isinstance(limits, list) else [("k", 1, limits)]})


class Lane:
    """One lane of one provider, and a clock in ms."""

    def __init__(self, redis: Redis) -> None:
        self.now = START
        self.queue = Queue(redis, clock=lambda: self.now)

    def at(self, ms: float = 0) -> datetime:
        """Return the time in so many ms."""
        return datetime.fromtimestamp((self.now + ms) / 1000, UTC)

    async def put(
        self,
        number: int = 1,
        *,
        tenant: str = "t",
        key_id: UUID | None = None,
        tokens: tuple[int, int] = (0, 0),
        priority: str = "standard",
        deadline: float | None = None,
    ) -> list[UUID]:
        """Enqueue jobs that come now; `deadline` is in ms from now."""
        due = None if deadline is None else self.at(deadline)
        made = [Entry(ids.new_id(), TARGET, priority, self.at(), tenant, *tokens, due, key_id) for _ in range(number)]
        await self.queue.enqueue(made)
        return [one.id for one in made]

    async def look(self, limits: Limits, most: int = 1_000) -> Proposal:
        return await self.queue.claim("p", most=most, lease=60, payload=b"{}", limits=deployments(limits))

    async def claim(self, limits: Limits, most: int = 1_000) -> tuple[list[Taken], float | None]:
        found = await self.look(limits, most)
        return found.taken, found.next_ms

    async def done(
        self,
        taken: list[Taken],
        left: tuple[int, int] = (0, 0),
        *,
        used: tuple[int, int] | None = None,
        ms: float | None = None,
    ) -> None:
        """End jobs: `left` of what they drew comes back; with `ms` their calls went well and took so long."""
        await self.queue.move(
            "p", [Move(one.lane, one.id, None, Spent(one.key, (0, *left), used, ms, one.at)) for one in taken]
        )

    async def state(self, limits: Limits) -> LaneState:
        return (await self.queue.survey("p", ["m"], limits=deployments(limits)))["m"]

    async def flows(self) -> dict[str, int]:
        """Return how many jobs of each flow wait; each has its turn or is on hold, and nothing else stands there."""
        redis, p = self.queue.redis, "sluice:p:"
        names = [one.decode().removeprefix(p) async for one in redis.scan_iter(p + "*")]
        waiting = {one.removeprefix("waiting:m:"): 0 for one in names if one.startswith("waiting:m:")}
        for one in waiting:
            waiting[one] = await redis.zcard(f"{p}waiting:m:{one}")
        scopes = {"m", *(f"m:{one.partition('/')[0]}" for one in waiting)}
        assert {one.removeprefix("tags:") for one in names if one.startswith("tags:")} == (scopes if waiting else set())
        held = {one.decode() for one in await redis.zrange(p + "hold:m", 0, -1)}
        for scope in scopes if waiting else ():
            tagged = {one.decode() for one in await redis.hkeys(f"{p}tags:{scope}")}
            in_turn = {one.decode() for one in await redis.zrange(f"{p}turns:{scope}", 0, -1)}
            if scope == "m":
                assert tagged == {one.partition("/")[0] for one in waiting}
                on_hold = {one for one in tagged if one in held or not await redis.exists(f"{p}turns:m:{one}")}
            else:
                assert tagged == {one for one in waiting if f"m:{one.partition('/')[0]}" == scope}
                on_hold = {one for one in tagged if (one if "/" in one else one + "/") in held}
            assert in_turn == tagged - on_hold
        assert {one.removeprefix("turns:") for one in names if one.startswith("turns:")} <= scopes
        return waiting


@asynccontextmanager
async def lane_at(url: str) -> AsyncIterator[Lane]:
    client = queue.connect(url)
    yield Lane(client)
    await client.aclose(close_connection_pool=True)


@asynccontextmanager
async def lane_beside(url: str) -> AsyncIterator[Lane]:
    """A lane in another Redis database than a URL's: the first that is empty, and is again afterwards."""
    for number in range(1, 16):
        client = queue.connect(f"{url.partition('?')[0]}?db={number}")
        if not await client.dbsize():
            break
        await client.aclose(close_connection_pool=True)
    else:
        raise AssertionError("no database of this Redis is empty")
    try:
        yield Lane(client)
    finally:
        await client.flushdb()
        await client.aclose(close_connection_pool=True)


@dataclass(slots=True)
class Bucket:
    """What a provider admits: it refills evenly, `a_minute`, up to `most`, and begins full."""

    a_minute: float
    most: float
    level: float = math.inf
    at: float = START

    def wait(self, wanted: float, now: float) -> float:
        """Refill to now and return the ms until so much is there."""
        self.level = min(self.most, self.level + (now - self.at) * self.a_minute / 60_000)
        self.at = now
        return max(0.0, (wanted - self.level) * 60_000 / self.a_minute)

    def headers(self, name: str) -> dict[str, str]:
        """Return what OpenAI says of such a limit."""
        full = (self.most - self.level) * 60_000 / self.a_minute
        return {
            f"x-ratelimit-limit-{name}": f"{self.a_minute:.0f}",
            f"x-ratelimit-remaining-{name}": f"{max(0, math.floor(self.level))}",
            f"x-ratelimit-reset-{name}": f"{full:.0f}ms",
        }


@dataclass(slots=True)
class Upstream:
    """A provider with a bucket of requests and maybe one of tokens; an answer takes `latency` ms, a refusal 2."""

    requests: Bucket
    tokens: Bucket | None = None
    latency: float = 200.0
    arrived: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    def ask(self, tokens: int, now: float) -> tuple[float, dict[str, str]]:
        """Return the ms to wait before it is asked again, 0 where it answers, and the headers."""
        buckets = [(self.requests, 1, "requests")] + ([(self.tokens, tokens, "tokens")] if self.tokens else [])
        wait = max(bucket.wait(wanted, now) for bucket, wanted, _ in buckets)
        self.arrived.append(now - START)
        if wait:
            self.refused.append(now - START)
        else:
            for bucket, wanted, _ in buckets:
                bucket.level -= wanted
        return wait, {name: said for bucket, _, of in buckets for name, said in bucket.headers(of).items()}


class Gateway:
    """A pool that works one lane: it claims when told to, calls, and tells the queue what came of it.

    `delay` is how long at most, in ms, a call is on its way. Nobody knows before a job's output, 90 to 590 tokens.
    """

    input_tokens = 12

    def __init__(
        self, lane: Lane, upstream: Upstream, limits: Limits, *, seed: int = 1, delay: float = 25, heeds: bool = True
    ) -> None:
        self.lane, self.upstream, self.limits = lane, upstream, limits
        self.delay, self.heeds = delay, heeds
        self.slots = 400
        self.ended: list[float] = []
        self.outputs: dict[UUID, int] = {}
        self.events: list[tuple[float, int, Callable[[], Awaitable[None]]]] = []
        self._numbers = count()
        self._random = random.Random(seed)
        self._moves: list[Move] = []
        self._looking = 0

    async def put(self, number: int) -> None:
        made = await self.lane.put(number, tokens=(self.input_tokens, 0))
        self.outputs |= {id_: self._random.randint(90, 590) for id_ in made}
        self._look_in(0)

    @property
    def tokens(self) -> int:
        """How many tokens all its jobs take."""
        return sum(self.outputs.values()) + self.input_tokens * len(self.outputs)

    def _later(self, ms: float, what: Callable[[], Awaitable[None]]) -> None:
        heapq.heappush(self.events, (self.lane.now + ms, next(self._numbers), what))

    def _look_in(self, ms: float) -> None:
        self._looking += 1  # it stands for the one that was arranged before
        self._later(ms, partial(self._claim, self._looking))

    async def _claim(self, number: int) -> None:
        if number != self._looking or not self.slots or len(self.ended) == len(self.outputs):
            return
        found = await self.lane.look(self.limits, self.slots)
        for one in found.taken:
            self.slots -= 1
            self._later(self._random.uniform(4, self.delay), partial(self._arrive, one))
        self._look_in(
            max(1.0, min(500.0 if found.next_ms is None else found.next_ms, 500.0)) + self._random.uniform(0, 3)
        )

    async def _arrive(self, one: Taken) -> None:
        wait, headers = self.upstream.ask(self.input_tokens + self.outputs[one.id], self.lane.now)
        self._later(2 if wait else self.upstream.latency, partial(self._answer, one, wait, headers))

    async def _answer(self, one: Taken, wait: float, headers: dict[str, str]) -> None:
        self.slots += 1
        if self.heeds:
            await self.lane.queue.told(one, "p", allowances(headers))
        if wait:
            await self.lane.queue.refused(TARGET, one.key, seconds=wait / 1000)
            due = self.lane.at(wait + self._random.uniform(0, 1_000))
            move = Move("m", one.id, due, Spent(one.key, (0, one.input_tokens, one.output_tokens), at=one.at))
        else:
            self.ended.append(self.lane.now - START)
            used = self.input_tokens, self.outputs[one.id]
            back = (0, one.input_tokens - used[0], one.output_tokens - used[1])
            move = Move("m", one.id, None, Spent(one.key, back, used, self.upstream.latency, one.at))
        self._moves.append(move)
        if len(self._moves) == 1:  # what ends in the next moment is written with it
            self._later(2, self._flush)

    async def _flush(self) -> None:
        moves, self._moves = self._moves, []
        await self.lane.queue.move("p", moves)
        self._look_in(1)


async def work(*gateways: Gateway, until: float = math.inf) -> None:
    """Let gateways work until their jobs are done, or until a time in ms."""
    while busy := [one for one in gateways if one.events]:
        first = min(busy, key=lambda one: one.events[0][0])
        if first.events[0][0] > START + until:
            return
        at, _, event = heapq.heappop(first.events)
        for one in gateways:
            one.lane.now = max(one.lane.now, at)
        await event()
