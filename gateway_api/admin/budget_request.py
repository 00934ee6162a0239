"""What is asked of a budget: its shape, and what of it the configuration must know."""

from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Literal, Self
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field, StrictBool, StrictInt, model_validator

from gateway_api import reading
from gateway_api.admin.changing import Closed
from shared.budgets import OnExhausted, Period
from shared.config import Config, cost_of
from shared.db.budgets import BudgetRow
from shared.errors import Fault
from shared.pricing import NANOS
from shared.providers import Usage
from shared.routing import resolve
from shared.schemas import LONGEST_USER, Dollars

USUAL_THRESHOLDS = (50, 80, 100)


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones()) - {"localtime"} | {"UTC"}  # where is that?


def _zone(name: str) -> str:
    if name not in _zones():
        raise ValueError("must be the IANA name of a time zone, as Europe/Berlin")
    return name


def _once_each(values: list[int]) -> list[int]:
    return sorted(set(values))


Named = Annotated[str, Field(min_length=1, max_length=256)]
Thresholds = Annotated[
    list[Annotated[StrictInt, Field(ge=1, le=1_000)]], Field(max_length=10), AfterValidator(_once_each)
]
Kind = Literal["hard", "soft"]


class Scope(Closed):
    """Whose spend is limited: what is combined must all be true of a job."""

    tenant_id: str | None = None
    team_id: str | None = None
    key_id: str | None = None
    user: Annotated[str, Field(min_length=1, max_length=LONGEST_USER)] | None = None
    tag: Annotated[str, Field(pattern="^[^=]+=", max_length=64 + 1 + 512)] | None = None
    model: Named | None = None

    @property
    def whole(self) -> bool:
        """Whether it is all of a tenant."""
        return not any((self.team_id, self.key_id, self.user, self.tag, self.model))


class BudgetRequest(Closed):
    """`POST /v1/admin/budgets`."""

    scope: Scope
    window: Period
    limit_usd: Dollars
    kind: Kind = "hard"
    on_exhausted: OnExhausted = "reject"
    downgrade_to: Named | None = None
    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"
    allow_unpriced: StrictBool = False
    thresholds: Thresholds = Field(default_factory=lambda: [*USUAL_THRESHOLDS])

    @model_validator(mode="after")
    def _downgrades(self) -> Self:
        _check_downgrade(self.on_exhausted, self.downgrade_to)
        return self


class BudgetChange(Closed):
    """`PATCH /v1/admin/budgets/{id}`: what is absent stays. For another scope, window or time zone make another."""

    limit_usd: Dollars | None = None
    kind: Kind | None = None
    on_exhausted: OnExhausted | None = None
    downgrade_to: Named | None = None
    allow_unpriced: StrictBool | None = None
    thresholds: Thresholds | None = None

    @model_validator(mode="after")
    def _not_taken_away(self) -> Self:
        absent = [name for name in self.model_fields_set if getattr(self, name) is None]
        if wrong := sorted({*absent} - {"downgrade_to"}):
            raise ValueError(f"{', '.join(wrong)} cannot be null")
        return self


def _check_downgrade(on_exhausted: str, downgrade_to: str | None) -> None:
    if (on_exhausted == "downgrade") != (downgrade_to is not None):
        raise ValueError("downgrade_to is needed where on_exhausted is downgrade, and only there")


def changes(asked: BudgetChange, before: BudgetRow) -> dict[str, Any]:
    """Return the columns of a budget that a request changes. Raises ApiError 400."""
    given = {name: getattr(asked, name) for name in asked.model_fields_set}
    if "limit_usd" in given:
        given["limit_nanos"] = int(given.pop("limit_usd") * NANOS)
    if "kind" in given:
        given["hard"] = given.pop("kind") == "hard"
    if given.get("on_exhausted", "downgrade") != "downgrade":
        given.setdefault("downgrade_to", None)
    try:
        _check_downgrade(given.get("on_exhausted", before.on_exhausted), given.get("downgrade_to", before.downgrade_to))
    except ValueError as error:
        raise reading.refusal([Fault("downgrade_to", str(error))]) from None
    return {name: value for name, value in given.items() if value != getattr(before, name)}


def check(config: Config, scope: Scope, downgrade_to: str | None, *, allow_unpriced: bool) -> None:
    """Raise ApiError 400 with all of a budget that the configuration does not know."""
    if faults := list(_faults(config, scope, downgrade_to, allow_unpriced=allow_unpriced)):
        raise reading.refusal(faults)


def _faults(config: Config, scope: Scope, downgrade_to: str | None, *, allow_unpriced: bool) -> Iterator[Fault]:
    tags = config.usage.tags
    if scope.tag is not None and scope.tag.partition("=")[0] not in tags:
        listed = f"they are {', '.join(tags)}" if tags else "there are none"
        yield Fault("scope.tag", f"must begin with one of the configuration's `usage.tags` and =; {listed}")
    if scope.model is not None and resolve(scope.model, config.providers, config.models) is None:
        yield Fault("scope.model", f"the model {scope.model!r} is not served here")
    if downgrade_to is None:
        return
    target = resolve(downgrade_to, config.providers, config.models)
    if target is None:
        yield Fault("downgrade_to", f"the model {downgrade_to!r} is not served here")
    elif not allow_unpriced and cost_of(config.providers[target.provider], target.model, Usage(1, 1)) is None:
        yield Fault("downgrade_to", f"nobody knows what {target} costs, so the budget could not be kept")
