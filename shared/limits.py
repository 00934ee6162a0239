"""How much a provider takes of one key and model: what the claim keeps to, and what a call used of it."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Protocol

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

RESERVE_OUTPUT = frozenset({"azure_openai", "bedrock", "openai"})
"""Kinds of providers that count the output which a request allows itself, and not what it used."""

KEEP_OUTPUT = RESERVE_OUTPUT - {"bedrock"}
"""Those of them that give nothing back when less was used."""

LIMIT_NAMES = {"rpm": "r", "tpm": "t", "input_tpm": "i", "output_tpm": "o", "concurrency": "flight", "burst": "burst"}
"""The names that the queue's scripts have for limits, by those in the configuration."""


def number(value: object) -> object:
    """Return a value that is to be a number; pydantic would take true for 1. Raises ValueError."""
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


_Positive = Annotated[float, BeforeValidator(number), Field(gt=0, le=1e12, allow_inf_nan=False)]


class Limits(BaseModel):
    """What a provider takes of one key and model: requests and tokens a minute, calls at once; None is no limit known.

    `burst` is how many requests may come at once after a pause.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rpm: _Positive | None = None
    tpm: _Positive | None = None
    input_tpm: _Positive | None = None
    output_tpm: _Positive | None = None
    concurrency: Annotated[int, BeforeValidator(number), Field(gt=0, le=1_000_000)] | None = None
    burst: Annotated[float, BeforeValidator(number), Field(ge=1, le=1e12, allow_inf_nan=False)] | None = None

    def but(self, other: "Limits") -> "Limits":
        """Return these limits with those of `other` in their place, where it has some."""
        return self.model_copy(update=other.model_dump(exclude_none=True))

    def shape(self) -> dict[str, float]:
        """Return the limits by the names that the queue's scripts have for them."""
        return {LIMIT_NAMES[name]: value for name, value in self.model_dump(exclude_none=True).items()}


class Spent(NamedTuple):
    """What a call was to its deployment's limits.

    `key` is the deployment's, which may have none (""), None where there was no deployment; `back` the requests, input
    and output tokens that were drawn for it and are free again (below 0: what it used besides), `used` the tokens it
    used, None where nobody knows, `ms` how long it took, None where it did not go well, and `at` when it was drawn for
    (ms).
    """

    key: str | None = None
    back: tuple[int, int, int] = (0, 0, 0)
    used: tuple[int, int] | None = None
    ms: float | None = None
    at: float = 0.0


NOTHING_SPENT = Spent()


class _Key(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def weight(self) -> float: ...
    @property
    def value(self) -> SecretStr: ...


class _Model(Protocol):
    @property
    def limits(self) -> Limits: ...


class Deployments(Protocol):
    """The part of a provider's configuration that its deployments follow from."""

    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def keys(self) -> Sequence[_Key]: ...  # noqa: D102
    @property
    def limits(self) -> Limits: ...  # noqa: D102
    @property
    def models(self) -> Mapping[str, _Model]: ...  # noqa: D102


def key_mark(value: SecretStr) -> str:
    """Return what tells a key's value from the one that stood there before, and nothing else of it."""
    return "key:" + hashlib.sha256(value.get_secret_value().encode()).hexdigest()[:8]


def deployments_json(provider: Deployments) -> bytes:
    """Return a provider's limits as the queue's scripts read them: for each lane, its deployments."""

    def deployments(limits: Limits) -> list[tuple[str, float, dict[str, Any], str]]:
        shape = limits.shape() | {"learn": True, "reserve": provider.kind in RESERVE_OUTPUT}
        return [(key.name, key.weight, shape, key_mark(key.value)) for key in provider.keys] or [
            ("", 1.0, shape, "key:")
        ]

    lanes = {name: deployments(provider.limits.but(model.limits)) for name, model in provider.models.items()}
    return orjson.dumps(lanes | {"*": deployments(provider.limits)})
