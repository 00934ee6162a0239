"""Anthropic's Messages: the synchronous route, and the count of a request's tokens; batches are `message_batches`."""

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

from aiohttp import web

from gateway_api import reading, synchronous
from gateway_api.answers import as_json
from gateway_api.state import CALLER, STATE
from shared import tokens
from shared.messages import BETA
from shared.serving import MESSAGES


async def create(request: web.Request) -> web.StreamResponse:
    """`POST /v1/messages`."""
    raw = await reading.body_bytes(request)
    return await synchronous.run(request, MESSAGES, raw, with_betas(request, reading.json_object(raw)))


async def count_tokens(request: web.Request) -> web.Response:
    """`POST /v1/messages/count_tokens`: about as many as the vendor will count, see `shared.tokens`."""
    router, body = request.app[STATE].router, reading.json_object(await reading.body_bytes(request))
    asked = {"url": MESSAGES, "body": {"max_tokens": 1, **body}}
    found = reading.read_job(asked, router, partial(router.chosen, standing=None), request[CALLER])
    if isinstance(found, list):
        raise reading.refusal([replace(fault, param=fault.param.removeprefix("body.")) for fault in found])
    counted = await asyncio.to_thread(tokens.likely_input, body, found.choice.target.model)
    return as_json({"input_tokens": counted})


def with_betas(request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
    """Return a request's body with what its header `anthropic-beta` names, for when the job is called."""
    names = [name.strip() for name in ",".join(request.headers.getall("anthropic-beta", ())).split(",") if name.strip()]
    return {BETA: names, **body} if names else body
