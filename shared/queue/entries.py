"""What goes into the queue's scripts and comes out of them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Self
from uuid import UUID

from shared.limits import NOTHING_SPENT, Spent
from shared.routing import Target

HEAD_START_MS = {"interactive": 600_000, "standard": 0, "bulk": -600_000}
"""How much earlier than it came a job of this priority counts as having come: nothing is overtaken for ever."""

WEIGHTS = {"interactive": 4, "standard": 2, "bulk": 1}
"""How many tokens of this priority a tenant gets for one of another tenant's bulk work."""


def flow(tenant: str, key_id: UUID | None) -> str:
    """Return the name of a flow: the jobs of one key of a tenant, or of none. No tenant's id has a slash."""
    return tenant if key_id is None else f"{tenant}/{key_id.hex}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A job to stand in a queue."""

    id: UUID
    target: Target
    priority: str
    run_at: datetime
    tenant: str
    input_tokens: int = 0
    output_tokens: int = 0
    deadline: datetime | None = None
    key_id: UUID | None = None

    @classmethod
    def of(cls, row: Any) -> Self:
        """Return the entry of a job, given as a row or a new one."""
        target = Target(row.provider, row.upstream_model)
        return cls(
            row.id,
            target,
            row.priority,
            row.run_at,
            row.tenant_id,
            row.input_estimate,
            row.output_estimate,
            row.deadline,
            row.key_id,
        )

    def row(self) -> tuple[str | int, ...]:
        """Return the entry as the scripts read it."""
        run_at = int(self.run_at.timestamp() * 1000)
        deadline = 0 if self.deadline is None else int(self.deadline.timestamp() * 1000)
        return (
            self.target.model, self.id.hex, run_at, run_at - HEAD_START_MS[self.priority],
            flow(self.tenant, self.key_id), self.input_tokens, self.output_tokens, WEIGHTS[self.priority], deadline,
        )  # fmt: skip


class Taken(NamedTuple):
    """A job that a claim took: the key to call with, and the tokens that were drawn from its bucket for it.

    `mark` says how the bucket stood, for whoever compares it with what the provider says of it.
    """

    lane: str
    id: UUID
    key: str
    input_tokens: int
    output_tokens: int
    mark: str = ""

    @property
    def unused(self) -> Spent:
        """What it drew, given back: no call was made."""
        return Spent(self.key, (1, self.input_tokens, self.output_tokens), at=self.at)

    @property
    def at(self) -> float:
        """When it was drawn for, in ms by the queue's clock."""
        return float(self.mark.partition(":")[0] or 0)


class Move(NamedTuple):
    """A job that leaves motion, for good or to be `due` again, and what its call was to the limits."""

    lane: str
    id: UUID
    due: datetime | None
    spent: Spent = NOTHING_SPENT

    def row(self) -> tuple[str | int | float, ...]:
        """Return the move as the scripts read it."""
        key, back, used, ms, at = self.spent
        due = -1 if self.due is None else int(self.due.timestamp() * 1000)
        took = -1 if ms is None else round(ms, 1)
        return (self.lane, self.id.hex, due, False if key is None else key, *back, *(used or (-1, -1)), took, at)


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a claim found.

    What it took; the ms until a lane of this provider next has something (or None); `late`, the jobs that cannot meet
    their deadline any more and left the queue; `shut`, the lanes where jobs wait and nobody may be called.
    """

    taken: list[Taken]
    next_ms: float | None
    late: list[UUID]
    shut: list[str]
