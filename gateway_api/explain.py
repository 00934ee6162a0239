"""Where a job would go, why, at what cost and when: answered without running anything or storing a thing."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from aiohttp import web

from gateway_api import conversation, reading
from gateway_api.answers import as_json
from gateway_api.state import CALLER, STATE, TENANT, State
from shared import pricing
from shared.candidates import Candidate
from shared.choice import Choice, Ranked, reason
from shared.queue import RedisAway
from shared.queue.survey import LaneState
from shared.routing import Route, Target


async def explain(request: web.Request) -> web.Response:
    """`POST /v1/routes/explain` with a job's request: which target would be chosen, and what was weighed."""
    state = request.app[STATE]
    value = reading.json_object(await reading.body_bytes(request))
    await conversation.expand(state, request[TENANT], value)
    dropped = reading.drop_unsupported(value, state.router)
    standing = await _standing(state, value)
    found = reading.read_job(value, state.router, partial(state.router.chosen, standing=standing), request[CALLER])
    if isinstance(found, list):
        raise reading.refusal(found)
    model = found.asked.body["model"]
    shown = {"object": "route", "model": model, "strategy": state.router.strategy(model)} | _shown(found.choice)
    return as_json(shown, headers=reading.dropped_header(dropped))


async def _standing(state: State, value: Mapping[str, Any]) -> dict[Target, LaneState]:
    """Return how the lanes stand that a job may go to; nothing where it may go nowhere, or while Redis is away."""
    body = value.get("body")
    model = body.get("model") if isinstance(body, dict) else None
    if not isinstance(model, str) or not state.router.serves(model):
        return {}
    with suppress(*RedisAway):
        return await state.lanes.ask(state.router.targets(model))
    return {}


def _shown(choice: Choice) -> dict[str, Any]:
    candidates = [_candidate(choice.ranked, index) for index in range(len(choice.ranked))]
    route = choice.route or Route()
    held = {one.candidate.target for one in choice.ranked}
    left_out = {str(one.candidate.target): one.why for one in choice.left_out if one.candidate.target not in held}
    return {
        "target": str(choice.target),
        "provider": choice.target.provider,
        "estimated_cost_usd": candidates[0]["estimated_cost_usd"],
        "eta_seconds": candidates[0]["eta_seconds"],
        "candidates": candidates,
        "left_out": [{"target": target, "why": why} for target, why in left_out.items()],
        "fallbacks": {
            "general": list(map(str, route.general)),
            "context": list(map(str, route.context)),
            "content": list(map(str, route.content)),
        },
    }


def _candidate(ranked: Sequence[Ranked], index: int) -> dict[str, Any]:
    one: Candidate = ranked[index].candidate
    lane = one.lane
    return {
        "target": str(one.target),
        "chosen": index == 0,
        "why": reason(ranked, index),
        "estimated_cost_usd": None if one.cost is None else pricing.usd(one.cost),
        "eta_seconds": None if lane is None or lane.eta is None else round(lane.eta, 3),
        "latency_seconds": None if lane is None or lane.latency is None else round(lane.latency, 3),
        "waiting": None if lane is None else lane.waiting,
        "in_motion": None if lane is None else lane.in_motion,
        "healthy": None if lane is None else lane.healthy,
    }
