"""`python -m gateway_api`: one front-door process."""

import asyncio
import gc
import os
import signal
import sys

import structlog
import uvloop
from aiohttp import web

from gateway_api import app
from shared import config, log, settings
from shared.errors import ConfigError
from shared.settings import Settings


async def serve(chosen: Settings) -> None:
    """Serve until SIGINT or SIGTERM; then answer what is under way and end."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(
        app.create(chosen, config.load(chosen.config, os.environ)),
        access_log=None,
        keepalive_timeout=75,
        shutdown_timeout=chosen.shutdown_grace,
    )
    await runner.setup()
    gc.freeze()  # what is loaded by now stays: the collector need not look through it again and again
    site = web.TCPSite(runner, chosen.host, chosen.port, backlog=1024)
    await site.start()
    structlog.get_logger(__name__).info("api.started", host=chosen.host, port=runner.addresses[0][1])
    await stop.wait()
    await runner.cleanup()


def main() -> None:
    """Entry of the process."""
    try:
        chosen = settings.load()
        log.configure(chosen.log_level, chosen.log_format)
        uvloop.run(serve(chosen))
    except ConfigError as error:
        sys.exit(f"sluice api: {error}")


if __name__ == "__main__":
    main()
