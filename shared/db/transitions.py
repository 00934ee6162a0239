"""Every change of a job's status after its claim, in one fenced statement for many jobs at once.

Job, result, attempt, cost, ledger, budgets, hourly usage, batch counters and pending deliveries commit together. A
transition whose fence no longer matches changes no job and makes no event; what its attempt used is still booked,
because the provider charged for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import orjson
from sqlalchemy import Row, text

from shared import ids
from shared.db.engine import Connection
from shared.limits import NOTHING_SPENT, Spent
from shared.routing import NOWHERE_ELSE, Route, Target

AttemptStatus = Literal["completed", "failed", "released", "lost", "cancelled", "expired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnd:
    """How an attempt ended. Tokens are None where nothing is known; `error` is JSON; times are aware."""

    status: AttemptStatus
    charged: bool
    started_at: datetime
    ended_at: datetime
    provider: str
    deployment: str | None = None
    key_name: str | None = None
    error: str | None = None
    upstream_request_id: str | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    estimated: bool = False
    cost_nanos: int | None = None
    price_version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A job's next status, and the fence: it takes effect only from `was` and at attempt number `attempt`.

    `attempt_end` is None where no attempt was under way (a queued job that is cancelled or expires), `spent` what its
    call was to the limits. A job that goes to another target, `to`, keeps its place; `route` is where it may go from
    there, and `downgraded` says that a budget sent it there. `held_by` is the budget that a queued job waits for. The
    `result` of one that is queued is the answer that is to be repaired.
    """

    id: UUID
    tenant_id: str
    batch_id: UUID | None
    target: Target
    attempt: int
    was: Literal["queued", "in_progress"]
    status: Literal["queued", "completed", "failed", "cancelled", "expired"]
    at: datetime
    run_at: datetime | None = None
    error: str | None = None
    result: bytes | None = field(default=None, repr=False)
    attempt_end: AttemptEnd | None = None
    spent: Spent = NOTHING_SPENT
    to: Target | None = None
    route: Route = NOWHERE_ELSE
    downgraded: bool = False
    held_by: UUID | None = None

    @property
    def to_provider(self) -> str | None:
        """The provider of the target it goes to."""
        return None if self.to is None else self.to.provider

    @property
    def to_model(self) -> str | None:
        """The upstream model of the target it goes to."""
        return None if self.to is None else self.to.model

    @property
    def to_route(self) -> str | None:
        """Where it may go from there, as JSON."""
        return orjson.dumps(self.route.stored()).decode() if self.to else None


def ended_queued(
    row: Any, status: Literal["cancelled", "expired", "failed"], *, error: str | None = None
) -> Transition:
    """Return the end of a job that is a queued row of `jobs`; it takes effect only if nobody claims it before.

    `error` is the JSON of one that fails.
    """
    return _of_queued(row, status=status, error=error)


def moved_queued(row: Any, to: Target, route: Route) -> Transition:
    """Return the move of a queued job to another target's queue; it takes effect only if nobody claims it before."""
    return _of_queued(row, status="queued", to=to, route=route)


def _of_queued(row: Any, **change: Any) -> Transition:
    return Transition(
        id=row.id,
        tenant_id=row.tenant_id,
        batch_id=row.batch_id,
        target=Target(row.provider, row.upstream_model),
        attempt=row.attempt,
        was="queued",
        at=datetime.now(UTC),
        **change,
    )


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a transition.

    The job's status after it (None: the fence did not match), whether there is an event to deliver, whether a job of
    its batch need not wait for others any more, and the job's row where it is queued for another target.
    """

    status: str | None
    has_delivery: bool
    lets_go: bool = False
    moved: Row[Any] | None = None


_APPLY = text((Path(__file__).parent / "transitions.sql").read_text())

_MOVED = text("""
SELECT id, tenant_id, key_id, provider, upstream_model, priority, run_at, deadline, input_estimate, output_estimate
FROM jobs WHERE id = ANY(CAST(:ids AS uuid[]))
""")

_JOB_COLUMNS = ("id", "tenant_id", "batch_id", "attempt", "was", "status", "at", "run_at", "error", "result",
                "to_provider", "to_model", "to_route", "downgraded", "held_by")  # fmt: skip
_ATTEMPT_COLUMNS = tuple(AttemptEnd.__slots__)
_NOT_APPLIED = Applied(None, has_delivery=False)


async def apply(connection: Connection, transitions: Sequence[Transition]) -> list[Applied]:
    """Apply transitions in one statement; return what became of each, in order. Safe to repeat.

    Of several with the same fence the first takes effect.
    """
    first = {_fence(t): t for t in reversed(transitions)}
    ordered = [first[fence] for fence in sorted(first)]
    columns: dict[str, list[object]] = {name: [getattr(t, name) for t in ordered] for name in _JOB_COLUMNS}
    columns["delivery_id"] = [ids.new_id() for _ in ordered]
    columns["incomplete"] = [_incomplete(t.result) for t in ordered]
    for name in _ATTEMPT_COLUMNS:
        columns[f"a_{name}"] = [getattr(t.attempt_end, name) if t.attempt_end else None for t in ordered]
    rows = await connection.execute(_APPLY, columns)
    applied = {_fence(row): Applied(row.status, row.has_delivery, row.lets_go) for row in rows}
    went = [fence for fence, one in applied.items() if one.status == "queued" and first[fence].to is not None]
    if went:
        moved = {row.id: row for row in await connection.execute(_MOVED, {"ids": [fence[0] for fence in went]})}
        applied |= {fence: replace(applied[fence], moved=moved[fence[0]]) for fence in went}
    return [applied.get(_fence(t), _NOT_APPLIED) if first[_fence(t)] is t else _NOT_APPLIED for t in transitions]


def _incomplete(result: bytes | None) -> bool:
    """Tell whether an answer is a response that says it was cut short; few have the word."""
    return result is not None and b'"incomplete"' in result and orjson.loads(result).get("status") == "incomplete"


def _fence(of: Any) -> tuple[UUID, int, str]:
    return of.id, of.attempt, of.was
