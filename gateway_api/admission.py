"""May these jobs come in? Every limit that binds who submits them is asked, just before they are stored.

So a malformed request costs nothing, and a refused one leaves nothing behind. A caller without limits is not counted.
How it is counted is `shared.rates`; jobs that wait are counted by `queue_room`. `docs/limits.md` tells callers.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2s
from typing import Any, NamedTuple

from aiohttp import web

from gateway_api.access import Caller
from gateway_api.caller_limits import AtDoor, TenantLimits
from gateway_api.state import CALLER, STATE
from gateway_api.submit import IdempotencyKey
from shared.errors import ApiError
from shared.rates import Asked, Standing

MOST_END_USERS = 1_000
"""The limited end users that one batch may name: they are counted at once."""

LONGEST_RETRY_AFTER = 60
_SHOWN = web.RequestKey("rate_limits", dict[str, str])

Amounts = Mapping[str | None, tuple[int, int]]
"""Requests and tokens, by the end user they are for."""


class _Bound(NamedTuple):
    whose: str
    asked: Asked


async def admit(request: web.Request, new: Sequence[Any], key: IdempotencyKey | None = None) -> None:
    """Let jobs in that are about to be stored. Raises ApiError: 429 where a limit refuses them, 503.

    A repeat of what was accepted is let in whatever the limits say.
    """
    state, caller = request.app[STATE], request[CALLER]
    try:
        limits = await state.callers.limits_of(caller.tenant)
        paced = caller.limits.paced or limits.paced
        await _admit(request, limits, len(new), _amounts(new) if paced else {})
    except ApiError:
        if key is None or await state.submitter.known(caller.tenant, key) is None:
            raise


async def admit_unread(request: web.Request, jobs: int, tokens: int, key: IdempotencyKey | None) -> None:
    """Let jobs in that nobody has read yet, as `admit` does: how many tokens they ask for is guessed by their size.

    End users' own limits are not looked at: nobody knows whom they are for.
    """
    state, caller = request.app[STATE], request[CALLER]
    try:
        limits = await state.callers.limits_of(caller.tenant)
        await _admit(request, limits, jobs, {None: (jobs, tokens)})
    except ApiError:
        if key is None or await state.submitter.known(caller.tenant, key) is None:
            raise


async def admit_again(request: web.Request, number: int) -> None:
    """Let jobs in that were stored before and are to run again; their tokens, counted then, are not counted twice."""
    limits = await request.app[STATE].callers.limits_of(request[CALLER].tenant)
    await _admit(request, limits, number, {None: (number, 0)})


async def _admit(request: web.Request, limits: TenantLimits, number: int, amounts: Amounts) -> None:
    state, caller = request.app[STATE], request[CALLER]
    await state.room.take(caller.tenant, number, own=limits.own.queued, key=caller.key_id, of_key=caller.limits.queued)
    if not amounts:
        return
    try:
        bound = list(_bound(caller, limits, amounts))
        if not bound:
            return
        if len(bound) > MOST_END_USERS:
            raise ApiError(
                400,
                f"A batch may name {MOST_END_USERS:,} end users where these are limited.",
                code="too_many_end_users",
            )
        standings = await state.rates.ask([one.asked for one in bound])
        if caller.limits.paced:
            request[_SHOWN] = _headers(bound[0].asked, standings[0])
        if any(standing.wait_ms for standing in standings):
            raise _refusal(bound, standings)
    except ApiError:
        state.room.give_back(caller.tenant, number, key=caller.key_id)
        raise


async def show(request: web.Request, response: web.StreamResponse) -> None:
    """Add to an answer how the caller's key stands, where that was looked at. Called before any answer begins."""
    if _SHOWN in request:
        response.headers.update(request[_SHOWN])


def _amounts(new: Sequence[Any]) -> Amounts:
    found: dict[str | None, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for job in new:
        requests, tokens = found[job.end_user]
        found[job.end_user] = requests + 1, tokens + job.input_estimate + job.output_estimate
    return found


def _bound(caller: Caller, limits: TenantLimits, amounts: Amounts) -> Iterator[_Bound]:
    """Yield whose limits bind jobs, the key's first, with what is asked of each."""
    whole = sum(requests for requests, _ in amounts.values()), sum(tokens for _, tokens in amounts.values())

    def bound(whose: str, subject: str, of: AtDoor, amount: tuple[int, int] = whole) -> Iterator[_Bound]:
        if of.paced:
            yield _Bound(whose, Asked(subject, of.rpm or 0, of.tpm or 0, *amount))

    if caller.key_id is not None:
        yield from bound("this key", f"key:{caller.key_id.hex}", caller.limits)
    if caller.team_id in limits.teams:
        yield from bound("this key's team", f"team:{caller.team_id.hex}", limits.teams[caller.team_id])
    yield from bound("this tenant", f"tenant:{caller.tenant}", limits.own)
    for name, amount in amounts.items() if limits.end_users else ():
        if name is not None:
            # Its name is the caller's choice, and perhaps an address: Redis need not know it.
            digest = blake2s(name.encode(errors="surrogatepass"), digest_size=16).hexdigest()
            subject = f"end_user:{caller.tenant}:{digest}"
            yield from bound(f"the end user {name[:100]!r}", subject, limits.of_end_user(name), amount)


def _refusal(bound: Sequence[_Bound], standings: Sequence[Standing]) -> ApiError:
    """Return the 429 of the limit that has jobs wait the longest."""
    (whose, asked), stands = max(zip(bound, standings, strict=True), key=lambda one: one[1].wait_ms)
    kind, most, used, more = "requests", asked.rpm, stands.requests, asked.requests
    if stands.tokens_ms > stands.requests_ms:
        kind, most, used, more = "tokens", asked.tpm, stands.tokens, asked.tokens
    seconds = max(1, math.ceil(int(stands.wait_ms) / 1000))
    return ApiError(
        429,
        f"Rate limit of {whose} reached: {most:,} {kind} a minute, of which {used:,} are used; this asks for {more:,}. "
        f"Try again in {seconds:,} s.",
        type="rate_limit_error",
        code="rate_limit_exceeded",
        retry_after=min(seconds, LONGEST_RETRY_AFTER),
    )


def _headers(asked: Asked, stands: Standing) -> dict[str, str]:
    found = {}
    for kind, most, used in (("requests", asked.rpm, stands.requests), ("tokens", asked.tpm, stands.tokens)):
        if most:
            found[f"x-ratelimit-limit-{kind}"] = str(most)
            found[f"x-ratelimit-remaining-{kind}"] = str(max(0, most - used))
            found[f"x-ratelimit-reset-{kind}"] = _shown(stands.full_ms)
    return found


def _shown(ms: float) -> str:
    """Return a time as OpenAI's headers have it: `120ms`, `1.5s`, `6m0s`."""
    if ms < 1000:
        return f"{int(ms)}ms"
    minutes, rest = divmod(int(ms), 60_000)
    return (f"{minutes}m" if minutes else "") + f"{rest / 1000:g}s"
