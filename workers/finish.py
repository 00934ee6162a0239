"""Finishing: a verdict becomes a transition, and the transitions of the last few milliseconds share one transaction."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol, assert_never
from uuid import UUID

import orjson
import structlog

from shared import ids
from shared.commit import commit
from shared.db import engine as db
from shared.db.transitions import Applied, AttemptEnd, Transition
from shared.errors import HANDLING, ErrorKind, ProviderError, Unavailable
from shared.group_commit import GroupCommit
from shared.lifecycle import Cancel, Complete, Expire, Fail, Release, Reroute, Retry, Verdict
from shared.limits import NOTHING_SPENT, Spent
from shared.providers import Usage
from shared.queue import Queue
from shared.routing import NOWHERE_ELSE, Target

log = structlog.get_logger(__name__)

_RETRY_SECONDS = 0.5
_REPEATS = 2


def error_json(error: ProviderError, *, retriable: bool) -> str:
    """Return the `error` of a job or an attempt as JSON; a NUL, which Postgres cannot store, is shown as U+FFFD."""
    shape = {
        "message": error.message.replace("\0", "\ufffd"),
        "type": HANDLING[error.kind].type,
        "code": error.kind.value,
        "retriable": retriable,
    }
    return orjson.dumps(shape, option=orjson.OPT_NON_STR_KEYS).decode()


class Attempted(Protocol):
    """What is known of an attempt that is under way: a claim, or a row of `jobs` in progress."""

    @property
    def id(self) -> UUID: ...  # noqa: D102
    @property
    def tenant_id(self) -> str: ...  # noqa: D102
    @property
    def batch_id(self) -> UUID | None: ...  # noqa: D102
    @property
    def provider(self) -> str: ...  # noqa: D102
    @property
    def upstream_model(self) -> str: ...  # noqa: D102
    @property
    def attempt(self) -> int: ...  # noqa: D102
    @property
    def claimed_at(self) -> datetime: ...  # noqa: D102


def transition(
    attempted: Attempted,
    verdict: Verdict,
    *,
    usage: Usage | None = None,
    cost_nanos: int | None = None,
    price_version: str | None = None,
    spent: Spent = NOTHING_SPENT,
) -> Transition:
    """Return what a verdict on an attempt changes; `spent` is what its call was to the limits.

    `usage` is what its call used, None where none was made or nothing charged; `cost_nanos` is None where the price is
    unknown, whose version is `price_version`.
    """
    now = datetime.now(UTC)
    run_at: datetime | None = None
    error: str | None = None
    result: bytes | None = None
    request_id: str | None = None
    deployment: str | None = None
    to, route = None, NOWHERE_ELSE
    match verdict:
        case Complete(completion):
            status, ended, charged, result = "completed", "completed", True, completion.body
            request_id, deployment = completion.request_id, f"{attempted.provider}/{completion.model}"
        case Fail(failure, retriable):
            status, ended, charged = "failed", "failed", True
            error, request_id = error_json(failure, retriable=retriable), failure.request_id
        case Retry(at, failure, charge, invalid):
            run_at = at
            if invalid is not None:
                result = orjson.dumps({"answer": invalid.answer, "words": invalid.words})
            status, ended, charged = "queued", "failed", charge
            error, request_id = error_json(failure, retriable=True), failure.request_id
        case Reroute(target, onward, failure, charge):
            to, route = target, onward
            status, ended, charged = "queued", "failed", charge
            error, request_id = error_json(failure, retriable=True), failure.request_id
        case Release():
            status, ended, charged = "queued", "released", False
        case Cancel():
            status, ended, charged = "cancelled", "cancelled", True
        case Expire():
            status, ended, charged = "expired", "expired", True
        case _:
            assert_never(verdict)
    return Transition(
        id=attempted.id,
        tenant_id=attempted.tenant_id,
        batch_id=attempted.batch_id,
        target=Target(attempted.provider, attempted.upstream_model),
        attempt=attempted.attempt,
        was="in_progress",
        status=status,  # type: ignore[arg-type]
        at=now,
        run_at=run_at,
        error=error if status == "failed" else None,
        result=result,
        spent=spent,
        to=to,
        route=route,
        attempt_end=AttemptEnd(
            status=ended,  # type: ignore[arg-type]
            charged=charged,
            started_at=attempted.claimed_at,
            ended_at=now,
            provider=attempted.provider,
            deployment=deployment,
            key_name=spent.key or None,
            error=error,
            upstream_request_id=request_id,
            input_tokens=usage.input if usage else None,
            cached_tokens=usage.cached if usage else None,
            cache_write_tokens=usage.cache_write if usage else None,
            output_tokens=usage.output if usage else None,
            reasoning_tokens=usage.reasoning if usage else None,
            estimated=usage.estimated if usage else False,
            cost_nanos=cost_nanos,
            price_version=price_version,
        ),
    )


class Finisher:
    """Commits transitions in groups, and does not give up: what was paid for is written as soon as Postgres answers."""

    def __init__(self, engine: db.Engine, queue: Queue) -> None:
        self._engine = engine
        self._queue = queue
        self._group: GroupCommit[Transition, Applied] = GroupCommit(self._flush, most=200, lanes=2, waiting=1_000_000)

    async def finish(self, change: Transition) -> Applied:
        """Commit a transition and tell Redis; returns when it is on disk."""
        return await self._group.add(change)

    async def _flush(self, changes: Sequence[Transition]) -> list[Applied]:
        again = _REPEATS
        while True:
            try:
                return await commit(self._engine, self._queue, changes)
            except Unavailable:
                log.warning("finish.delayed", jobs=len(changes))
                await asyncio.sleep(_RETRY_SECONDS)
            except Exception as error:
                if not db.is_refused(error):  # it may go well later, and what was answered has been paid for
                    log.exception("finish.delayed", jobs=len(changes))
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                # One that cannot be written must not hold up its neighbours; it may have met another of its attempt.
                if len(changes) > 1:
                    return [(await self._flush([change]))[0] for change in changes]
                if again:
                    again -= 1
                    continue
                log.exception("finish.refused", job=ids.show("job", changes[0].id))
                stripped = _unwritable(changes[0])
                if changes[0] == stripped:
                    return [Applied(None, has_delivery=False)]
                changes = [stripped]


def _unwritable(change: Transition) -> Transition:
    """Return the failure of a job whose end Postgres refused, without anything that came from outside."""
    error = error_json(
        ProviderError(ErrorKind.INVALID_RESPONSE, "the provider's answer could not be stored"), retriable=False
    )
    ended = change.attempt_end and replace(change.attempt_end, error=error, upstream_request_id=None, deployment=None)
    return replace(change, status="failed", result=None, error=error, attempt_end=ended)
