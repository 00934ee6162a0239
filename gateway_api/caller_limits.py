"""The limits that bind a caller at the door, as the front door keeps them in memory: its key's, and its tenant's.

How many calls may be under way (`in_flight`) is not kept at the door: workers keep to it when they claim.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self
from uuid import UUID

from shared.db.rate_limits import LimitRow

EVERY_END_USER = "*"


@dataclass(frozen=True, slots=True)
class AtDoor:
    """Requests and tokens a minute, jobs waiting; None for any number."""

    rpm: int | None = None
    tpm: int | None = None
    queued: int | None = None

    @property
    def paced(self) -> bool:
        """Whether there is anything to count."""
        return self.rpm is not None or self.tpm is not None

    @classmethod
    def of(cls, row: LimitRow) -> Self:
        """Return those of a stored row."""
        return cls(row.rpm, row.tpm, row.queued)

    @classmethod
    def of_key(cls, limits: Mapping[str, int]) -> Self:
        """Return those of a key, as they are stored with it."""
        return cls(limits.get("rpm"), limits.get("tpm"), limits.get("queued"))


UNLIMITED = AtDoor()


@dataclass(slots=True)
class TenantLimits:
    """What a tenant limits besides its keys: itself, its teams, its end users."""

    own: AtDoor = UNLIMITED
    teams: dict[UUID, AtDoor] = field(default_factory=dict)
    end_users: dict[str, AtDoor] = field(default_factory=dict)

    @property
    def paced(self) -> bool:
        """Whether there may be anything to count."""
        return self.own.paced or bool(self.teams or self.end_users)

    def of_end_user(self, name: str | None) -> AtDoor:
        """Return the limits of an end user: its own, else those of every end user; none for nobody."""
        if name is None:
            return UNLIMITED
        return self.end_users.get(name) or self.end_users.get(EVERY_END_USER, UNLIMITED)


def by_tenant(tenants: Iterable[str], rows: Iterable[LimitRow]) -> dict[str, TenantLimits]:
    """Return the limits of each tenant from the rows of all."""
    found = {tenant: TenantLimits() for tenant in tenants}
    for row in rows:
        limits, of = AtDoor.of(row), found[row.tenant_id]
        if row.team_id is not None:
            of.teams[row.team_id] = limits
        elif row.end_user is not None:
            of.end_users[row.end_user] = limits
        else:
            of.own = limits
    return found
