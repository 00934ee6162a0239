"""The aiohttp application: state, routes, middleware, background tasks."""

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web

from gateway_api import admission, validation
from gateway_api.auth import Callers
from gateway_api.funds import Funds
from gateway_api.lanes import Lanes
from gateway_api.middleware import guard
from gateway_api.queue_room import QueueRoom
from gateway_api.router import Router
from gateway_api.routes import ROUTES
from gateway_api.state import STATE, State
from gateway_api.submit import Submitter
from gateway_api.waiters import Waiters
from shared import catalog, queue, storage
from shared.config import Config
from shared.db import engine as db
from shared.errors import ConfigError
from shared.queue import Queue
from shared.rates import Rates
from shared.settings import Settings


def create(settings: Settings, config: Config) -> web.Application:
    """Return the front door. Raises ConfigError where a setting that it needs is missing."""
    if settings.database_url is None or settings.redis_url is None:
        raise ConfigError("SLUICE_DATABASE_URL and SLUICE_REDIS_URL must be set (`sluice up` brings its own servers)")
    if settings.admin_key is None or not settings.admin_key.get_secret_value():
        raise ConfigError("SLUICE_ADMIN_KEY must be set; make one with `openssl rand -hex 32`")
    engine = db.create(settings.database_url, pool_size=settings.database_pool, name="sluice-api")
    redis = queue.connect(settings.redis_url)
    line = Queue(redis)
    waiters, lanes = Waiters(line), Lanes(line, config)
    submitter, room = Submitter(engine, line), QueueRoom(line, config)
    router = Router(config, lanes)
    files = storage.create(config.files, engine)
    callers = Callers(settings.admin_key.get_secret_value(), engine, line)
    app = web.Application(middlewares=[guard(callers)], client_max_size=settings.max_body_bytes)
    app[STATE] = State(
        settings, config, lanes, router, engine, line, submitter, waiters, callers, Rates(redis), room,
        Funds(engine, router, submitter), files, settings.secrets_keys, asyncio.Event(),
    )  # fmt: skip
    app.add_routes(ROUTES)
    app.on_response_prepare.append(admission.show)

    async def background(_: web.Application) -> AsyncIterator[None]:
        await asyncio.to_thread(catalog.names, "openai")  # read once, here and not while a request waits
        listening = (waiters.listen(), lanes.watch(), callers.listen(), callers.watch(), validation.run(app[STATE]))
        tasks = [asyncio.create_task(one) for one in listening]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await files.aclose()
        await redis.aclose(close_connection_pool=True)
        await engine.dispose()

    app.cleanup_ctx.append(background)
    return app
