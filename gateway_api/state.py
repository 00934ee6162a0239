"""What every handler of the front door may reach, made once in main."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from aiohttp import web

from gateway_api.access import Caller
from gateway_api.auth import Callers
from gateway_api.funds import Funds
from gateway_api.lanes import Lanes
from gateway_api.queue_room import QueueRoom
from gateway_api.router import Router
from gateway_api.submit import Submitter
from gateway_api.waiters import Waiters
from shared.config import Config
from shared.db.engine import Engine
from shared.queue import Queue
from shared.rates import Rates
from shared.sealing import Keys
from shared.settings import Settings
from shared.storage import Storages


@dataclass(frozen=True, slots=True)
class State:
    """The front door's connections and settings."""

    settings: Settings
    config: Config
    lanes: Lanes
    router: Router
    engine: Engine
    queue: Queue
    submitter: Submitter
    waiters: Waiters
    callers: Callers
    rates: Rates
    room: QueueRoom
    funds: Funds
    storage: Storages
    secrets_keys: Keys | None
    unvalidated: asyncio.Event
    """A batch has come whose lines are in a file."""
    samples: Counter[str] = field(default_factory=Counter)
    """How many samples to webhook endpoints each tenant waits for."""


STATE = web.AppKey("state", State)
REQUEST_ID = web.RequestKey("request_id", str)
CALLER = web.RequestKey("caller", Caller)
TENANT = web.RequestKey("tenant", str)


def request_headers(request: web.Request) -> dict[str, str]:
    """Return the headers that name a request, by OpenAI's name and by Anthropic's."""
    return {"x-request-id": request[REQUEST_ID], "request-id": request[REQUEST_ID]}
