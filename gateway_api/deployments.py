"""Deployments over HTTP: each key at each upstream model, what it admits and how it does."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from gateway_api.answers import as_json
from gateway_api.state import STATE, State
from shared.errors import Unavailable
from shared.limits import deployments_json
from shared.queue import RedisAway
from shared.queue.survey import DeploymentState, LaneState
from shared.routing import Target, parse


async def list_(request: web.Request) -> web.Response:
    """`GET /v1/admin/deployments`: of every lane that is configured by name or had jobs lately."""
    state = request.app[STATE]
    try:
        shown = [one for name in state.config.providers for one in await _of(state, name)]
    except RedisAway as error:
        raise Unavailable("the queue is not available") from error
    return as_json({"object": "list", "data": shown, "has_more": False})


async def _of(state: State, name: str) -> list[dict[str, Any]]:
    provider = state.config.providers[name]
    named = {parse(one) for model in state.config.models.values() for one in model.targets}
    lanes = {*provider.models, *(one.model for one in named if one.provider == name), *await state.queue.lanes(name)}
    states = await state.queue.survey(name, sorted(lanes), limits=deployments_json(provider))
    return [
        _shown(Target(name, lane), lane_state, one)
        for lane, lane_state in states.items()
        for one in lane_state.deployments
    ]


def _shown(target: Target, lane: LaneState, one: DeploymentState) -> dict[str, Any]:
    """Return a deployment with its lane: limits are a minute, but `concurrency` and `burst`; null is unknown."""
    return {
        "id": f"{target}#{one.key}",
        "object": "deployment",
        "provider": target.provider,
        "model": target.model,
        "key": one.key or None,
        "health": one.health,
        "resting_seconds": round(one.resting, 1),
        "in_flight": one.in_flight,
        "limits": {
            "configured": _rounded({name: v for name, v in one.limits.items() if name not in one.learned}),
            "learned": _rounded(one.learned),
            "left": _rounded(one.left),
        },
        "lane": {
            "waiting": lane.waiting,
            "in_motion": lane.in_motion,
            "jobs_per_second": round(lane.pace, 2),
            "latency_seconds": lane.latency and round(lane.latency, 3),
            "latency_p95_seconds": lane.latency_p95 and round(lane.latency_p95, 3),
        },
    }


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 1) for name, value in values.items()}
