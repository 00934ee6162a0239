"""The queue in Redis: which job next, and when. It holds ids only and may be emptied at any moment.

Each provider's pool has its keys behind one prefix:

| key | type | holds |
|---|---|---|
| `sluice:P:lanes` | sorted set | the lanes of provider P, by the time (ms) each next has something to claim |
| `sluice:P:seen` | sorted set | the lanes that were looked at lately, by when (ms) |
| `sluice:P:waiting:L:F` | sorted set | ids of flow F waiting in lane L, by arrival (ms) less their head start |
| `sluice:P:turns:L` | sorted set | the tenants that wait in lane L, by whose turn it is |
| `sluice:P:turns:L:T` | sorted set | the flows of tenant T that wait in lane L, by whose turn it is among them |
| `sluice:P:hold:L` | sorted set | tenants (`T`) and flows (`T/KEY`, `T/`) that have nothing taken, by until when (ms) |
| `sluice:flight:T`, `flight:F` | sorted set | ids of a tenant or a flow that are called, where that is limited |
| `sluice:caps` | hash | how many calls a tenant or a flow may have under way, where it has its own limit |
| `sluice:P:tags:S`, `past:S`, `clock:S` | | virtual time in a scope, `L` or `L:T`: of who waits, has left, of itself |
| `sluice:P:deadlines:L:F` | sorted set | those of them that have a deadline, by it (ms) |
| `sluice:P:facts:L` | hash | what a claim must know of each job: tokens, weight, order, deadline, flow |
| `sluice:P:usage:L` | hash | what each tenant's jobs used, by those that ended |
| `sluice:P:bucket:L:K` | hash | what key K may still ask of the lane's model, what was learned of it, its circuit |
| `sluice:P:flight:L:K` | sorted set | ids that are being called with key K, where that is limited |
| `sluice:P:pace:L` | hash | how many jobs were taken in each of the last seconds |
| `sluice:P:held:L` | hash | the job that holds its place until it is admitted, and since when |
| `sluice:P:queue:L` | sorted set | what is in motion, second calls too, in arq's layout: an id by its time due (ms) |
| `sluice:P:probe:K:M`, `probing` | string | key K (mark M) was asked after lately; somebody looked lately |
| `sluice:P:wake` | list | one entry for every worker to wake |
| `sluice:deliver:wake`, `let_go:wake` | list | wakes who delivers, who lets jobs go that waited for others |
| `arq:job:ID`, `arq:retry:ID` | string | arq's own, while a job is claimed |
| `sluice:stream:ID` | stream | the chunks of a streamed answer, see `chunks.py` |
| `sluice:finished`, `sluice:cancel` | channels | ids of jobs that ended, that shall stop |

A time in the future is a lease or a deferred run; a due one is taken first. What is due is judged by Redis's
own clock; a `run_at` is as right as the clock of who wrote it. A lane is named by its upstream model. A flow
is one key's jobs of a tenant, named `T/KEY`, or `T` for those that no key submitted.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar, overload
from uuid import UUID

import orjson
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from shared import ids
from shared.allowance import Allowance, Dimension
from shared.queue.chunks import Chunks
from shared.queue.entries import Entry, Move, Proposal, Taken, flow
from shared.queue.survey import LaneState, lane_state
from shared.routing import Target

MOST_AT_ONCE = 1_000
"""Jobs that one call of a script puts in their queues; Redis does nothing else meanwhile."""

UNLIMITED = b'{"*":[["",1,{}]]}'
"""One key without limits, for every lane."""

FINISHED = "sluice:finished"
CANCEL = "sluice:cancel"
DELIVER_WAKE = "sluice:deliver:wake"
LET_GO_WAKE = "sluice:let_go:wake"
CAPS = "sluice:caps"
FILLED = "sluice:filled"
"""A key that is there as long as Redis has not been emptied."""

RedisAway = (RedisError, OSError)
"""What a call raises while Redis cannot be reached or cannot serve: restarting, full, a replica."""

_DAY = 86_400
_DIRECTORY = Path(__file__).parent


Client = TypeVar("Client", bound=Redis)


@overload
def connect(url: str) -> Redis: ...
@overload
def connect(url: str, *, client: type[Client]) -> Client: ...
def connect(url: str, *, client: type[Redis] = Redis) -> Redis:
    """Return a client for a `redis://` or `unix://` URL with a bounded pool and time-outs on everything."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=32,
        timeout=5,
        socket_timeout=10,
        socket_connect_timeout=5,
        health_check_interval=15,
        retry=Retry(NoBackoff(), 1),
        retry_on_error=[RedisConnectionError],
    )
    return client(connection_pool=pool)


def prefix(provider: str) -> str:
    """Return what the keys of a provider's pool begin with."""
    return f"sluice:{provider}:"


class Queue:
    """The scripts over one Redis client. Every method may raise `RedisAway` errors."""

    def __init__(self, redis: Redis, *, clock: Callable[[], float] | None = None) -> None:
        """Work over a client; without a `clock` (ms since 1970) it is Redis's own that counts."""
        self.redis = redis
        self._clock = clock
        # A client of its own on the same connections: what merges pipelines would mix one stream's faults with others.
        self.chunks = Chunks(Redis(connection_pool=redis.connection_pool))
        shared = "".join((_DIRECTORY / f"{name}.lua").read_text() for name in ("turns", "buckets"))
        self._scripts = {
            path.stem: redis.register_script(shared + path.read_text())
            for path in _DIRECTORY.glob("*.lua")
            if path.stem not in ("turns", "buckets")
        }

    def _now(self) -> str:
        return "" if self._clock is None else f"{self._clock():.3f}"

    async def enqueue(self, entries: Iterable[Entry]) -> None:
        """Put jobs in their lanes' queues and wake the pools; one that is there already stays where it is."""
        ordered = sorted(entries, key=lambda entry: entry.target.provider)
        for provider, group in groupby(ordered, key=lambda entry: entry.target.provider):
            new = [entry.row() for entry in group]
            for start in range(0, len(new), MOST_AT_ONCE):
                await self._run("enqueue", provider, orjson.dumps(new[start : start + MOST_AT_ONCE]))

    async def _run(self, script: str, provider: str, *arguments: str | int | float | bytes) -> Any:
        return await self._scripts[script](keys=[prefix(provider)], args=[self._now(), *arguments])

    async def claim(
        self, provider: str, *, most: int, lease: float, payload: bytes, limits: bytes = UNLIMITED, in_flight: int = 0
    ) -> Proposal:
        """Take up to `most` due jobs of a provider's lanes, as far as the limits of its deployments admit.

        Each is taken for `lease` seconds; `payload` is arq's for each. `limits` is from `deployments_json`;
        a tenant without a cap of its own has at most `in_flight` calls under way with all providers, 0 for any number.
        """
        taken, next_ms, late, shut = await self._run(
            "claim", provider, most, int(lease * 1000), payload, limits, in_flight
        )
        return Proposal(
            [
                Taken(lane, UUID(hex=id_), key, int(input_), int(output), mark)
                for lane, id_, key, input_, output, mark in orjson.loads(taken)
            ],
            float(next_ms) if next_ms is not None else None,
            [UUID(hex=id_.decode()) for id_ in late],
            [lane.decode() for lane in shut],
        )

    async def hedge(
        self,
        provider: str,
        first: Taken,
        *,
        waited: float,
        after: float | None,
        longest: float,
        limits: bytes = UNLIMITED,
        in_flight: int = 0,
    ) -> Taken | float | None:
        """Draw for a second call of a job whose first, `first`, has brought nothing for `waited` seconds.

        It is drawn from another key of the lane where one has room. The call is in motion under an id of its own, for
        at most `longest` seconds, until `move` ends it. Returns the seconds to wait where it is too early: it is late
        `after` so many seconds, None for the p95 of the lane's calls. Returns None where there is to be no second
        call: fewer than ten calls are known, or it could not go at once. `limits` and `in_flight` are as for a claim.
        """
        second = ids.new_id()
        late = "" if after is None else after * 1000
        found = await self._run(
            "hedge", provider, first.lane, first.id.hex, first.key, waited * 1000, late, second.hex,
            int(longest * 1000), limits, in_flight,
        )  # fmt: skip
        if found is None:
            return None
        if isinstance(found, bytes):
            return float(found) / 1000
        key, input_, output, mark = found
        return Taken(first.lane, second, key.decode(), int(input_), int(output), mark.decode())

    async def renew(self, provider: str, held: Iterable[tuple[str, UUID, str]], *, lease: float) -> None:
        """Prolong the leases of `(lane, id, key)`s by `lease` seconds from now."""
        rows = [(lane, id_.hex, key) for lane, id_, key in held]
        for start in range(0, len(rows), MOST_AT_ONCE):
            await self._run("renew", provider, int(lease * 1000), orjson.dumps(rows[start : start + MOST_AT_ONCE]))

    async def move(self, provider: str, moves: Iterable[Move]) -> None:
        """Take jobs out of motion."""
        rows = [one.row() for one in moves]
        for start in range(0, len(rows), MOST_AT_ONCE):
            await self._run("move", provider, orjson.dumps(rows[start : start + MOST_AT_ONCE]))

    async def set_caps(self, caps: Mapping[tuple[str, UUID | None], int]) -> None:
        """Say how many calls tenants (`(tenant, None)`) and keys may have under way, instead of what was said."""
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.delete(CAPS)
            if caps:
                pipe.hset(CAPS, mapping={flow(*whose): most for whose, most in caps.items()})
            await pipe.execute()

    async def hold(self, target: Target, tenant: str, key_id: UUID | None, *, seconds: float) -> None:
        """Have no job of a key (None: of those that no key submitted) taken for so long; a longer hold stays."""
        await self._run("hold", target.provider, target.model, flow(tenant, key_id), int(seconds * 1000))

    async def refused(self, target: Target, key: str, *, seconds: float) -> None:
        """Have a deployment take nothing for a while, and then less than before; a longer rest under way stays."""
        await self._run("refused", target.provider, target.model, key, int(seconds * 1000))

    async def failed(
        self, target: Target, key: str, *, mark: str = "", at: float | None = None, present: str = ""
    ) -> bool:
        """Count a call's failure that lies with the provider; return whether it opened the deployment's circuit.

        `mark` says that the key itself was refused: it is out until it has another value, or for a while. `at` is when
        the call was drawn for (ms), None for just now; `present` is the mark of the key as it is configured.
        """
        drawn_at = "" if at is None else at
        return bool(await self._run("failed", target.provider, target.model, key, mark, drawn_at, mark or present))

    async def told(self, taken: Taken, provider: str, said: Mapping[Dimension, Allowance]) -> None:
        """Note what the provider's answer to a call said of its deployment's limits."""
        shape = {name: (one.a_minute, one.left, one.burst) for name, one in said.items()}
        await self._run("told", provider, taken.lane, taken.key, taken.mark, orjson.dumps(shape))

    async def place(self, target: Target, id_: UUID, *, limits: bytes = UNLIMITED) -> tuple[int, float | None] | None:
        """Return how many jobs go before a waiting one, and the seconds until its turn (None where nothing moves).

        `limits` is from `deployments_json`.
        """
        found = await self._run("place", target.provider, target.model, id_.hex, limits)
        if found is None:
            return None
        before, pace = int(found[0]), float(found[1])
        return before, (before + 1) / pace if pace else None

    async def survey(self, provider: str, lanes: Sequence[str], *, limits: bytes) -> dict[str, LaneState]:
        """Return how lanes of a provider stand; `limits` is from `deployments_json`."""
        found = orjson.loads(await self._run("survey", provider, limits, *lanes))
        return {lane: lane_state(state) for lane, state in zip(lanes, found, strict=True)}

    async def waiting(self, tenant: str, providers: Iterable[str], *, key_id: UUID | None = None) -> int:
        """Return how many jobs of a tenant, or of one key of it, wait their turn with these providers."""
        lanes = [(name, lane) for name in providers for lane in await self.lanes(name)]
        flows = [{flow(tenant, key_id)}] * len(lanes)
        async with self.redis.pipeline(transaction=False) as pipe:
            if key_id is None:
                for name, lane in lanes:
                    pipe.hkeys(f"{prefix(name)}tags:{lane}:{tenant}")
                flows = [{tenant, *(one.decode() for one in found)} for found in await pipe.execute()]
            for (name, lane), names in zip(lanes, flows, strict=True):
                for one in names:
                    pipe.zcard(f"{prefix(name)}waiting:{lane}:{one}")
            return sum(await pipe.execute())

    async def usual_output(self, tenant: str, targets: Sequence[Target]) -> dict[Target, float]:
        """Return how many output tokens a tenant's jobs use in lanes, as far as some have ended there lately."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for target in targets:
                pipe.hget(f"{prefix(target.provider)}usage:{target.model}", tenant)
            found = await pipe.execute()
        return {target: float(held.partition(b":")[0]) for target, held in zip(targets, found, strict=True) if held}

    async def lanes(self, provider: str) -> list[str]:
        """Return the lanes of a provider that jobs were in during the last day."""
        seen = prefix(provider) + "seen"
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.zremrangebyscore(seen, "-inf", (time.time() - _DAY) * 1000)
            pipe.zrange(seen, 0, -1)
            pipe.zrange(prefix(provider) + "lanes", 0, -1)
            _, looked_at, waiting = await pipe.execute()
        return sorted({lane.decode() for lane in (*looked_at, *waiting)})

    async def announce(self, channel: str, wanted: Sequence[UUID]) -> None:
        """Publish ids on `FINISHED` or `CANCEL`."""
        await self.redis.publish(channel, b"".join(id_.bytes for id_ in wanted))

    async def woken(self, key: str, *, seconds: float) -> None:
        """Wait until there is a wake-up in a list, at most so many seconds."""
        # The stubs know neither fractions of seconds nor that this client is asynchronous.
        await self.redis.blpop([key], timeout=seconds)  # type: ignore[misc, arg-type]

    async def wake(self, key: str) -> None:
        """Wake who delivers webhooks (`DELIVER_WAKE`), who lets jobs go that waited for others (`LET_GO_WAKE`)."""
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.rpush(key, b"1")
            pipe.ltrim(key, -16, -1)
            await pipe.execute()


def announced(message: bytes) -> list[UUID]:
    """Return the ids of a message on `FINISHED` or `CANCEL`."""
    return [UUID(bytes=message[start : start + 16]) for start in range(0, len(message) - 15, 16)]
