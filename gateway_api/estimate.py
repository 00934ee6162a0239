"""What jobs would cost, before they are sent: counted and priced as if they were submitted, storing nothing."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from gateway_api import conversation, reading
from gateway_api.access import Caller
from gateway_api.answers import as_json
from gateway_api.router import EMBEDDINGS, USUAL_OUTPUT
from gateway_api.state import CALLER, STATE, State
from shared import tokens
from shared.batch_request import BatchRequest, with_defaults
from shared.budgets import UNKNOWN_OUTPUT
from shared.config import Config, capabilities_of, cost_of
from shared.errors import ApiError, Fault
from shared.providers import Usage
from shared.public import money
from shared.queue import RedisAway
from shared.routing import Target
from shared.schemas import MOST_FAULTS, faults_of

_AT_ONCE = 200
_MOST_CHOICES = 128


@dataclass(frozen=True, slots=True)
class _Asked:
    """What of a job decides what it costs; an answer of 0 tokens is one of any length."""

    target: Target
    url: str
    body: dict[str, Any]
    output: int

    @property
    def choices(self) -> int:
        """How many answers it asks for."""
        number = self.body.get("n")
        return min(number, _MOST_CHOICES) if isinstance(number, int) and number > 0 else 1


@dataclass(frozen=True, slots=True)
class _Sum:
    """What jobs come to; costs are in nano-dollars, of those whose price is known."""

    jobs: int = 0
    input: int = 0
    expected: int = 0
    most: int = 0
    cost: int = 0
    most_cost: int = 0
    unpriced: int = 0

    def __add__(self, other: "_Sum") -> "_Sum":
        return _Sum(*(getattr(self, name) + getattr(other, name) for name in _Sum.__slots__))

    def shown(self) -> dict[str, Any]:
        """Return it as callers see it; what is partly unknown is unknown."""
        known = not self.unpriced
        return {
            "jobs": self.jobs,
            "input_tokens": self.input,
            "output_tokens": {"expected": self.expected, "most": self.most},
            "cost_usd": {
                "expected": money(self.cost) if known else None,
                "most": money(self.most_cost) if known else None,
            },
            "unpriced": self.unpriced,
        }


async def estimate(request: web.Request) -> web.Response:
    """`POST /v1/estimate` with a job's request, or with a batch's."""
    state, caller = request.app[STATE], request[CALLER]
    value = reading.json_object(await reading.body_bytes(request))
    await conversation.expand(state, caller.tenant, value)
    asked = await _batch(value, state, caller) if "requests" in value else _one(value, state, caller)
    usual: Mapping[Target, float] = {}
    with suppress(*RedisAway):
        usual = await state.queue.usual_output(caller.tenant, list({one.target for one in asked}))
    sums: dict[Target, _Sum] = {}
    for start in range(0, len(asked), _AT_ONCE):
        group = asked[start : start + _AT_ONCE]
        priced = await asyncio.to_thread(_priced, group, state.config, usual)
        for one, found in zip(group, priced, strict=True):
            sums[one.target] = sums.get(one.target, _Sum()) + found
    by_target = [
        {"target": str(target), "provider": target.provider, "model": target.model} | found.shown()
        for target, found in sorted(sums.items(), key=lambda one: str(one[0]))
    ]
    return as_json({"object": "estimate"} | sum(sums.values(), _Sum()).shown() | {"by_target": by_target})


def _one(value: dict[str, Any], state: State, caller: Caller) -> list[_Asked]:
    found = _read(value, state, caller)
    if not isinstance(found, _Asked):
        raise reading.refusal(found)
    return [found]


async def _batch(value: dict[str, Any], state: State, caller: Caller) -> list[_Asked]:
    """Return the jobs of a batch. Raises ApiError: 413, 400 with the faults of all lines."""
    try:
        batch = BatchRequest.model_validate(value)
    except ValidationError as error:
        raise reading.refusal(faults_of(error)) from None
    most, requests, defaults = state.settings.max_batch_requests, batch.requests or (), batch.defaults.stored()
    if len(requests) > most:
        said = f"A batch may have {most} requests; this one has {len(requests)}."
        raise ApiError(413, said, code="too_many_tasks", param="requests")
    asked: list[_Asked] = []
    faults: list[Fault] = []
    for index, line in enumerate(requests):
        if index % _AT_ONCE == _AT_ONCE - 1:
            await asyncio.sleep(0)  # others are served meanwhile
        if len(faults) > MOST_FAULTS:
            break
        if isinstance(line, dict):
            named = {} if batch.endpoint is None else {"url": batch.endpoint}
            line = with_defaults(named | line, defaults)
        found = _read(line, state, caller)
        if isinstance(found, _Asked):
            asked.append(found)
        else:
            faults += [replace(one, param=f"requests[{index}].{one.param}".strip(".")) for one in found]
    if faults:
        raise reading.refusal(faults)
    return asked


def _read(value: object, state: State, caller: Caller) -> _Asked | Sequence[Fault]:
    if isinstance(value, dict):
        reading.drop_unsupported(value, state.router)
    found = reading.read_job(value, state.router, partial(state.router.chosen, standing=None), caller)
    if isinstance(found, list):
        return found
    return _Asked(found.choice.target, found.asked.url, found.asked.body, found.asked.output)


def _priced(asked: Iterable[_Asked], config: Config, usual: Mapping[Target, float]) -> list[_Sum]:
    return [_sum(one, config, usual.get(one.target)) for one in asked]


def _sum(one: _Asked, config: Config, learned: float | None) -> _Sum:
    provider, model = config.providers[one.target.provider], one.target.model
    expected = most = 0
    if one.url != EMBEDDINGS:
        able = capabilities_of(provider, model)
        most = (one.output or (able and able.max_output) or UNKNOWN_OUTPUT) * one.choices
        expected = min(most, USUAL_OUTPUT * one.choices if learned is None else round(learned))
    likely, bound = tokens.likely_input(one.body, model), tokens.most_input(one.body, [model])
    given = one.body.get("service_tier")
    tier = given if isinstance(given, str) else None
    cost = cost_of(provider, model, Usage(input=likely, output=expected), tier)
    costs = [cost_of(provider, model, Usage(input=bound, output=most, reasoning=part), tier) for part in (0, most)]
    known = [nanos for nanos in costs if nanos is not None]
    if cost is None or not known:
        return _Sum(1, likely, expected, most, unpriced=1)
    return _Sum(1, likely, expected, most, cost, max(known))
