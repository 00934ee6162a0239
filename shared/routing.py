"""From the model a caller names to the target that runs it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Target:
    """A provider and its own name of a model; also the name of a lane."""

    provider: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"


class ProviderModels(Protocol):
    """The part of a provider's configuration that routing reads."""

    @property
    def models(self) -> Mapping[str, object]:
        """The upstream models it lists; empty: it takes any name."""

    def serves(self, model: str) -> bool:
        """Whether its vendor is known to have a model."""


class ModelTargets(Protocol):
    """The part of a configured model that routing reads."""

    @property
    def targets(self) -> tuple[str, ...]:
        """Targets as `provider/model`, best first."""


def resolve(model: str, providers: Mapping[str, ProviderModels], models: Mapping[str, ModelTargets]) -> Target | None:
    """Return the target for the name a caller used, or None where nothing serves it.

    In this order: a configured model; `provider/model` named directly; an upstream model that one provider lists;
    where exactly one provider is configured and lists no models, any name; and the first of several that list none and
    whose vendor is known to have the model.
    """
    if model in models:
        return parse(models[model].targets[0])
    provider, slash, upstream = model.partition("/")
    if slash and provider in providers and upstream:
        return Target(provider, upstream)
    for name, options in providers.items():
        if model in options.models:
            return Target(name, model)
    if len(providers) == 1:
        (name, options), *_ = providers.items()
        if not options.models and model:
            return Target(name, model)
        return None
    for name, options in providers.items():
        if model and not options.models and options.serves(model):
            return Target(name, model)
    return None


def parse(target: str) -> Target:
    """Split `provider/model`; the model may hold further slashes. Raises ValueError where there is none."""
    provider, slash, model = target.partition("/")
    if not (slash and provider and model):
        raise ValueError(f"{target!r} is not provider/model")
    return Target(provider, model)
