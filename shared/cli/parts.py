"""The processes of the gateway: each alone (`api`, `worker`, `deliver`, `maintain`, `migrate`), or all of them (`up`).

A part runs as `python -m …`; the command line imports neither the front door nor the workers.
"""

import asyncio
import os
import runpy
import sys
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(up)
    app.command()(api)
    app.command()(worker)
    app.command()(deliver)
    app.command()(maintain)
    app.command()(migrate)
    app.command()(simulate)


def up() -> None:
    """Run the whole gateway on this machine, with embedded Postgres and Redis unless URLs of others are set."""
    from shared.cli.up import run
    from shared.errors import SluiceError

    try:
        asyncio.run(run())
    except SluiceError as error:
        sys.exit(f"sluice up: {error}")


def api() -> None:
    """Run one front-door process."""
    _module("gateway_api")


def worker(providers: Annotated[list[str], typer.Argument(help="providers whose jobs to run, a process each")]) -> None:
    """Run the worker pools of one or more providers."""
    if len(providers) == 1:
        _module("workers", "pool", providers[0])
    from shared.cli.up import run_pools
    from shared.errors import SluiceError

    try:
        asyncio.run(run_pools(providers))
    except SluiceError as error:
        sys.exit(f"sluice worker: {error}")


def deliver() -> None:
    """Run one process that delivers webhooks."""
    _module("workers", "deliver")


def maintain() -> None:
    """Run one process that repairs, expires and tends."""
    _module("workers", "maintain")


def migrate() -> None:
    """Bring the database's schema up to date."""
    from shared import settings
    from shared.db import migrate as schema
    from shared.errors import SluiceError

    try:
        url = settings.load().database_url
        if url is None:
            sys.exit("sluice migrate: SLUICE_DATABASE_URL must be set (`sluice up` migrates its own database)")
        asyncio.run(schema.upgrade(url))
    except SluiceError as error:
        sys.exit(f"sluice migrate: {error}")
    print(f"the schema is at revision {schema.latest()}")


def simulate(
    host: Annotated[str, typer.Option(help="the address it listens on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="the port it listens on")] = 9099,
    latency_ms: Annotated[float, typer.Option(help="median latency of an answer")] = 0.0,
    rpm: Annotated[int, typer.Option(help="requests a minute, 429 beyond; 0: no limit")] = 0,
) -> None:
    """Run a simulated provider, an OpenAI-compatible server that answers without a model."""
    options = {"--host": host, "--port": port, "--latency-ms": latency_ms, "--rpm": rpm}
    _module("shared.embedded.upstream", *(str(part) for option in options.items() for part in option))


def _module(name: str, *arguments: str) -> None:
    sys.argv = [name, *arguments]
    runpy.run_module(name, run_name="__main__", alter_sys=True)
    raise typer.Exit(int(os.EX_OK))
