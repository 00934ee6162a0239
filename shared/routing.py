"""From the model a caller names to the target that runs it."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, get_args

from shared.errors import Chain


@dataclass(frozen=True, slots=True)
class Target:
    """A provider and its own name of a model; also the name of a lane."""

    provider: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"


@dataclass(frozen=True, slots=True)
class Route:
    """Where a job may go when its target will not do: for each reason the targets yet to be tried, best first.

    `charged_before` is how many tries it had used up when it came to its present target.
    """

    general: tuple[Target, ...] = ()
    context: tuple[Target, ...] = ()
    content: tuple[Target, ...] = ()
    charged_before: int = 0

    @classmethod
    def of(cls, stored: Mapping[str, Any] | None) -> Self:
        """Return a route as it is stored, None for none."""
        if not stored:
            return cls()
        held = stored
        general, context, content = (tuple(map(parse, held.get(name, ()))) for name in get_args(Chain))
        return cls(general, context, content, held.get("charged_before", 0))

    def stored(self) -> dict[str, Any] | None:
        """Return the route as JSON values, None for an empty one; the opposite of `of`."""
        chains = {name: [str(one) for one in getattr(self, name)] for name in get_args(Chain)}
        held = {name: chain for name, chain in chains.items() if chain}
        return {**held, "charged_before": self.charged_before} if held or self.charged_before else None

    def after(self, chain: Chain, *, charged: int) -> tuple[Target, "Route"] | None:
        """Return the next target of a chain and the route from there, None where the chain is at its end."""
        left: tuple[Target, ...] = getattr(self, chain)
        if not left:
            return None
        return left[0], replace(self._without(left[0]), charged_before=charged)

    def instead(self, chosen: Target, left: Target, *, charged: int) -> "Route":
        """Return the route of a job that goes to `chosen` without having been called at the target it left.

        That one stays open to it, as the last.
        """
        rest = self._without(chosen)
        return replace(rest, general=(*rest.general, left), charged_before=charged)

    def within(self, providers: Container[str]) -> "Route":
        """Return the route without targets of other providers."""
        if not (self.general or self.context or self.content):
            return self
        general, context, content = (
            tuple(one for one in getattr(self, name) if one.provider in providers) for name in get_args(Chain)
        )
        return Route(general, context, content, self.charged_before)

    def _without(self, chosen: Target) -> "Route":
        general, context, content = (
            tuple(one for one in getattr(self, name) if one != chosen) for name in get_args(Chain)
        )
        return Route(general, context, content, self.charged_before)


NOWHERE_ELSE = Route()


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
