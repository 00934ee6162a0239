"""Where a job goes: gathers what is known of the targets it may have, and has `shared.choice` choose."""

import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from uuid import UUID

from gateway_api.lanes import Lanes
from shared import routing
from shared.candidates import ANY, LENIENCE, Candidate, Preferences, Wanted
from shared.catalog import Capabilities
from shared.choice import Choice, Group, Groups, Strategy, choose
from shared.config import Config, Provider, capabilities_of, cost_of
from shared.config_models import ListedTarget
from shared.errors import Fault
from shared.fitness import unfit
from shared.providers import Usage
from shared.queue.survey import LaneState
from shared.routing import Target

BYTES_PER_TOKEN = 4
USUAL_OUTPUT = 500
"""The tokens of an answer whose request does not limit it."""
EMBEDDINGS = "/v1/embeddings"
# What is there as base64 is far fewer tokens than its length says.
_INLINE = frozenset({"data", "file_data"})


@dataclass(frozen=True, slots=True)
class Asked:
    """A job as its target is chosen by. The sizes are in tokens, estimated; an output of 0 is any."""

    id: UUID
    url: str
    body: dict[str, Any]
    input: int = 0
    output: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    preferences: Preferences = ANY


@dataclass(frozen=True)
class _Option:
    """A listed target, and what is known of it whatever the job."""

    listed: ListedTarget
    target: Target
    provider: Provider
    model: str
    fallback: bool

    @cached_property
    def able(self) -> Capabilities | None:
        return capabilities_of(self.provider, self.target.model)

    @cached_property
    def abilities(self) -> int:
        able = self.able or Capabilities()
        return sum((able.tools is True, able.json_schema is True, able.reasoning is True, len(able.input or ())))

    @property
    def prices(self) -> tuple[float | None, float | None]:
        """USD per million tokens of input and output, from a thousand of each: more may be at another price."""
        each = (self.cost(Usage(input=1000)), self.cost(Usage(output=1000)))
        return each[0] and each[0] / 1e6, each[1] and each[1] / 1e6

    def cost(self, usage: Usage) -> int | None:
        return cost_of(self.provider, self.target.model, usage)


_Options = tuple[Strategy, list[_Option]]


@dataclass(frozen=True, slots=True)
class _Plan:
    """A model's own targets, and for each of its chains those of the chain's models."""

    own: _Options
    chains: tuple[list[_Options], ...] = ([], [], [])

    def options(self) -> Iterator[_Option]:
        for _, options in (self.own, *(group for chain in self.chains for group in chain)):
            yield from options


class Router:
    """Chooses for one front door; holds whose turn it is, and what need not be looked up twice."""

    def __init__(self, config: Config, lanes: Lanes, *, rng: random.Random | None = None) -> None:
        self.config = config
        self._lanes = lanes
        self._rng = rng or random.Random()
        self._turns: Counter[str] = Counter()
        self._plans: dict[str, _Plan] = {}

    def route(self, asked: Asked) -> Choice | list[Fault]:
        """Return where a job goes, and count it there; or why nothing can run it. Its model is known to be served."""
        name = asked.body["model"]
        model = self.config.models.get(name)
        if asked.preferences is ANY and (model is None or model.lone):
            target = routing.resolve(name, self.config.providers, self.config.models)
            assert target is not None
            faults = unfit(self.config.providers[target.provider], target.model, asked.url, asked.body)
            return faults or Choice(target)
        choice = self.chosen(asked, None)
        if isinstance(choice, Choice) and model is not None:
            self._turns[name] += 1
            self._lanes.sent(choice.target)
        return choice

    def chosen(self, asked: Asked, standing: Mapping[Target, LaneState] | None) -> Choice | list[Fault]:
        """Return the same with all that was weighed, without counting it; `standing` is how the lanes stand."""
        name, wishes = asked.body["model"], asked.preferences
        plan = self._plan(name)
        if name not in self.config.models:  # whoever names a target has chosen
            wishes = Preferences(only=wishes.only, ignore=wishes.ignore)

        def group(options: _Options) -> Group:
            strategy, listed = options
            priced = strategy == "cost" or wishes.sort == "price" or standing is not None
            return Group(strategy, [self._candidate(one, asked, standing, priced=priced) for one in listed])

        general, context, content = ([group(one) for one in chain] for chain in plan.chains)
        windows = [one.able.context_window for one in plan.options() if one.able and one.able.context_window]
        wanted = Wanted(asked.id, _prompt(asked, windows), asked.output, asked.metadata, wishes, turn=self._turns[name])
        return choose(Groups(group(plan.own), general, context, content), wanted, self._rng)

    def serves(self, model: str) -> bool:
        """Tell whether there is a target for the name a caller used."""
        return routing.resolve(model, self.config.providers, self.config.models) is not None

    def targets(self, model: str) -> set[Target]:
        """Return every target that a served model's jobs may go to."""
        return {one.target for one in self._plan(model).options()}

    def strategy(self, model: str) -> Strategy:
        """Return by what a served model's targets are chosen."""
        return self._plan(model).own[0]

    def passes_preferences_on(self, model: str) -> bool:
        """Tell whether a body's `provider` is for OpenRouter to read, because every target is there."""
        return all(one.provider.kind == "openrouter" for one in self._plan(model).options())

    def unsupported(self, url: str, body: dict[str, Any]) -> list[Fault]:
        """Return what the first of a served model's own targets cannot do, nothing where another can do it all."""
        _, options = self._plan(body["model"]).own
        found = [unfit(one.provider, one.target.model, url, body) for one in options]
        return found[0] if all(found) else []

    def _plan(self, name: str) -> _Plan:
        if name not in self.config.models:
            return _Plan(self._options(name))
        if name not in self._plans:
            model = self.config.models[name]
            chains = (model.fallbacks, model.context_fallbacks, model.content_fallbacks)
            self._plans[name] = _Plan(
                self._options(name), tuple([self._options(one, fallback=True) for one in chain] for chain in chains)
            )
        return self._plans[name]

    def _options(self, name: str, *, fallback: bool = False) -> _Options:
        strategy: Strategy = "order"
        if name in self.config.models:
            strategy, listed = self.config.models[name].strategy, self.config.models[name].listed
        else:
            target = routing.resolve(name, self.config.providers, self.config.models)
            assert target is not None
            listed = (ListedTarget(target=str(target)),)
        named = [(one, routing.parse(one.target)) for one in listed]
        return strategy, [
            _Option(one, target, self.config.providers[target.provider], name, fallback) for one, target in named
        ]

    def _candidate(
        self, option: _Option, asked: Asked, standing: Mapping[Target, LaneState] | None, *, priced: bool
    ) -> Candidate:
        able = option.able or Capabilities()
        return Candidate(
            option.target,
            option.provider.kind,
            model=option.model,
            fallback=option.fallback,
            weight=option.listed.weight,
            canary=option.listed.canary,
            when=option.listed.when,
            faults=unfit(option.provider, option.target.model, asked.url, asked.body, option.able),
            window=able.context_window,
            most_output=able.max_output,
            abilities=option.abilities,
            cost=option.cost(_usage(asked)) if priced else None,
            prices=option.prices if asked.preferences.max_price else (None, None),
            lane=self._lanes.of(option.target) if standing is None else standing.get(option.target),
        )


def _usage(asked: Asked) -> Usage:
    """Return what a job is expected to use; one that names its cache is expected to find it full."""
    return Usage(
        input=asked.input,
        output=0 if asked.url == EMBEDDINGS else asked.output or USUAL_OUTPUT,
        cached=asked.input if asked.body.get("prompt_cache_key") else 0,
    )


def _prompt(asked: Asked, windows: Iterable[int]) -> int:
    """Return the tokens that must fit a window, 0 where that is not known: inputs of embeddings each have their own."""
    if asked.url == EMBEDDINGS:
        return 0
    if asked.input <= LENIENCE * min(windows, default=math.inf):  # it fits everywhere: no need to look closer
        return asked.input
    inline, ahead = 0, [("", asked.body)]
    while ahead:
        key, value = ahead.pop()
        if isinstance(value, dict):
            ahead += value.items()
        elif isinstance(value, list):
            ahead += [(key, one) for one in value]
        elif isinstance(value, str) and (key in _INLINE or value.startswith("data:")):
            inline += len(value)
    return max(asked.input - inline // BYTES_PER_TOKEN, 0)
