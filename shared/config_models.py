"""The configuration's `models`: the names that callers use, their targets, and where their jobs go instead."""

import re
from decimal import Decimal
from functools import cached_property
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from shared import routing
from shared.choice import Strategy
from shared.config_faults import suggestion
from shared.limits import number


def _target(value: str, info: ValidationInfo) -> str:
    try:
        provider = routing.parse(value).provider
    except ValueError:
        raise ValueError("must be provider/model") from None
    if "\0" in value:
        raise ValueError("must not hold a NUL character")
    configured = info.context["providers"] if info.context else None
    if configured is not None and provider not in configured:
        raise ValueError("names a provider that is not configured" + suggestion(provider, configured))
    return value


def _listed(value: object, info: ValidationInfo) -> object:
    if isinstance(value, str):
        return ListedTarget(target=_target(value, info))
    if not isinstance(value, dict):
        raise ValueError("must be provider/model, or a mapping with `target`")
    return value


def _fallback(value: str, info: ValidationInfo) -> str:
    models = info.context["models"] if info.context else None
    if models is None or value in models:
        return value
    if "/" not in value:
        raise ValueError("is neither a configured model nor provider/model" + suggestion(value, models))
    return _target(value, info)


def _percentage(value: object) -> object:
    wrong = "must be a percentage such as 5% or 5"
    if isinstance(value, str):
        try:
            return float(value.strip().removesuffix("%"))
        except ValueError:
            raise ValueError(wrong) from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(wrong)
    return value


_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


def _late(value: object) -> object:
    if value is None or isinstance(value, bool):
        raise ValueError("must be p95, or a duration such as 1500ms, 2s or 2")
    if not isinstance(value, str):
        return value
    if value.strip() == "p95":
        return None
    if not (match := _DURATION.fullmatch(value.strip())):
        raise ValueError("must be p95, or a duration such as 1500ms, 2s or 2")
    return float(match[1]) * _UNITS[match[2]]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ListedTarget(_Closed):
    """A target of a model, and for which of its jobs it is.

    `weight` is its share under the strategy `weighted`, `canary` the percentage of jobs that go there first (the others
    only in need), `when` what a job's metadata must say.
    """

    target: Annotated[str, AfterValidator(_target)]
    weight: Annotated[float, BeforeValidator(number), Field(gt=0, le=1_000_000)] = 1.0
    canary: Annotated[float, BeforeValidator(_percentage), Field(gt=0, le=100)] | None = None
    when: dict[str, str] = {}


def _spread(listed: tuple[ListedTarget, ...]) -> tuple[ListedTarget, ...]:
    if listed and all(one.canary for one in listed):
        raise ValueError("must hold a target that is no canary, for the other jobs")
    if sum(one.canary or 0 for one in listed) > 100:
        raise ValueError("has canaries for more than 100% of the jobs")
    return listed


class Hedge(_Closed):
    """When the call of an interactive job is made a second time, so that the first good answer counts.

    It is late `after` so many seconds without an answer, None for the p95 of what the target's calls lately took. A job
    that may cost more than `max_cost_usd`, or nobody knows what, is not called twice.
    """

    after: Annotated[Annotated[float, Field(gt=0, le=86_400)] | None, BeforeValidator(_late)] = None
    max_cost_usd: Annotated[Decimal, BeforeValidator(number), Field(gt=0)]


_Names = tuple[Annotated[str, AfterValidator(_fallback)], ...]


class Model(_Closed):
    """A name that callers use: the targets that serve it, and the models that do where they cannot.

    Without a `hedge`, no call is made twice.
    """

    strategy: Strategy = "order"
    listed: Annotated[
        tuple[Annotated[ListedTarget, BeforeValidator(_listed)], ...],
        AfterValidator(_spread),
        Field(alias="targets", min_length=1),
    ]
    fallbacks: _Names = ()
    context_fallbacks: _Names = ()
    content_fallbacks: _Names = ()
    hedge: Hedge | None = None

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """Its own targets as `provider/model`, as listed."""
        return tuple(one.target for one in self.listed)

    @cached_property
    def lone(self) -> bool:
        """Whether there is nothing to choose: one target, for every job, and none besides."""
        chains = self.fallbacks or self.context_fallbacks or self.content_fallbacks
        return len(self.listed) == 1 and not self.listed[0].when and not chains
