"""The targets that a job might go to: what is known of each, and which of them can and may run it. Pure.

Which of those it is to be is `choice`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, Protocol
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, ValidationError

from shared.errors import Fault
from shared.limits import number
from shared.routing import Target
from shared.schemas import faults_of

LENIENCE = 1.5
"""How far a prompt's estimate, which is by its length, must exceed a window before the window counts as too small."""


class LaneView(Protocol):
    """The part of a lane's state that the choice reads."""

    @property
    def waiting(self) -> int: ...  # noqa: D102
    @property
    def in_motion(self) -> int: ...  # noqa: D102
    @property
    def pace(self) -> float: ...  # noqa: D102
    @property
    def latency(self) -> float | None: ...  # noqa: D102
    @property
    def eta(self) -> float | None: ...  # noqa: D102
    @property
    def healthy(self) -> bool: ...  # noqa: D102


class _Open(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_Usd = Annotated[float, BeforeValidator(number), Field(ge=0, allow_inf_nan=False)]


class MostPrice(_Open):
    """The most that a target may cost, in USD per million tokens."""

    prompt: _Usd | None = None
    completion: _Usd | None = None


_Names = Annotated[tuple[Annotated[str, Field(max_length=512)], ...], Field(max_length=100)]
_MOST_KEYS = 50


class Preferences(_Open):
    """What a caller says of the providers of a job, as OpenRouter has it; names are providers, kinds or targets."""

    order: _Names | None = None
    only: _Names | None = None
    ignore: _Names | None = None
    max_price: MostPrice | None = None
    sort: Literal["price", "latency", "throughput"] | None = None
    allow_fallbacks: StrictBool | None = None


ANY = Preferences()


def preferences(value: object) -> Preferences | list[Fault]:
    """Return the preferences in a body's `provider`, or all that is wrong with them."""
    if isinstance(value, dict) and len(value) > _MOST_KEYS:
        return [Fault("body.provider", f"has more than {_MOST_KEYS} keys")]
    try:
        return ANY if value is None else Preferences.model_validate(value)
    except ValidationError as error:
        return faults_of(error, prefix="body.provider")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A target as one job sees it; None is unknown.

    `faults` are what it cannot do of what is asked. `window` and `most_output` are in tokens, `abilities` is how many
    things it is known to do, `cost` this job's estimate in nano-dollars, `prices` USD per million tokens of input and
    output. `model` is the name it is listed under; it is a `fallback` where that is not the one that was asked for.
    """

    target: Target
    kind: str
    model: str = ""
    fallback: bool = False
    weight: float = 1.0
    canary: float | None = None
    when: Mapping[str, str] = field(default_factory=dict)
    faults: Sequence[Fault] = ()
    window: int | None = None
    most_output: int | None = None
    abilities: int = 0
    cost: int | None = None
    prices: tuple[float | None, float | None] = (None, None)
    lane: LaneView | None = None

    @property
    def names(self) -> tuple[str, str, str]:
        """What preferences may call it."""
        return self.target.provider, self.kind, str(self.target)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of a job decides where it goes. Sizes are in tokens, estimated; 0 is unknown.

    `turn` is how many jobs of its model came before it.
    """

    id: UUID
    input: int = 0
    output: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    preferences: Preferences = ANY
    turn: int = 0


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A candidate that the job does not go to. The later the `stage` at which it fell out, the closer it came."""

    candidate: Candidate
    why: str
    stage: int
    faults: Sequence[Fault]


def exclusion(one: Candidate, wanted: Wanted) -> LeftOut | None:
    """Return why a candidate must not run a job, None where it may."""

    def out(stage: int, why: str, param: str) -> LeftOut:
        return LeftOut(one, why, stage, [Fault(param, f"leaves no target of the model: {one.target}: {why}")])

    if one.when and not _matches(one.when, wanted.metadata):
        return out(0, "the job's metadata do not match its `when`", "metadata")
    if one.faults:
        said = "; ".join(f"{fault.param}: {fault.message}" for fault in one.faults)
        return LeftOut(one, said, 1, one.faults)
    asked = wanted.preferences
    if asked.only is not None and not set(one.names) & set(asked.only):
        return out(2, "it is not among those that the caller allows", "body.provider.only")
    if asked.ignore is not None and set(one.names) & set(asked.ignore):
        return out(2, "the caller excludes it", "body.provider.ignore")
    if asked.max_price is not None:
        for most, price in zip((asked.max_price.prompt, asked.max_price.completion), one.prices, strict=True):
            if most is not None and (price is None or price > most):
                why = "its price is not known" if price is None else f"it costs {price:g} USD per million tokens"
                return out(2, why, "body.provider.max_price")
    return None


def _matches(when: Mapping[str, str], metadata: Mapping[str, str]) -> bool:
    def held(name: str) -> list[str]:
        value = metadata.get(name)
        return [] if value is None else [value, *(part.strip() for part in value.split(","))]

    return all(value in held(name) for name, value in when.items())


def is_too_long(one: Candidate, wanted: Wanted) -> bool:
    """Tell whether a prompt is far longer than a candidate's window."""
    return one.window is not None and wanted.input > LENIENCE * one.window


def left_out_for_length(one: Candidate, wanted: Wanted) -> LeftOut:
    """Return a candidate whose window is too small."""
    return LeftOut(one, f"its window of {one.window} tokens is too small for about {wanted.input}", 3, ())
