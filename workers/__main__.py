"""`python -m workers pool PROVIDER`, `… deliver`, `… maintain`: one worker process."""

import asyncio
import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress

import structlog
import uvloop

from shared import config, log, queue, settings, storage
from shared.config import Config
from shared.db import engine as db
from shared.errors import ConfigError, Unavailable
from shared.queue import Queue
from shared.settings import Settings
from workers import call, dependants, destination
from workers.alert import Alerter
from workers.channels import Channels
from workers.deliver import MOST_AT_ONCE, Deliverer
from workers.finish import Finisher
from workers.maintain import Maintenance, repeat
from workers.merged_redis import MergedRedis
from workers.pool import PoolWorker
from workers.probe import probe
from workers.raising import Raiser
from workers.remove_files import remove_gone
from workers.run_job import Context
from workers.seal import seal_all
from workers.signers import Signers

logger = structlog.get_logger("workers")

FILES_SECONDS = 60.0
_AWAY_SECONDS = 0.5
_MOST_OPEN_FILES = 65_536


@asynccontextmanager
async def _stores(
    chosen: Settings, name: str, *, by_key: bool = False
) -> AsyncIterator[tuple[db.Engine, Queue, MergedRedis]]:
    if chosen.database_url is None or chosen.redis_url is None:
        raise ConfigError("SLUICE_DATABASE_URL and SLUICE_REDIS_URL must be set (`sluice up` brings its own servers)")
    engine = db.create(chosen.database_url, pool_size=chosen.database_pool, name=name, by_key=by_key)
    redis = queue.connect(chosen.redis_url, client=MergedRedis)
    try:
        yield engine, Queue(redis), redis
    finally:
        await redis.aclose(close_connection_pool=True)
        await engine.dispose()


async def pool(chosen: Settings, found: Config, provider: str) -> None:
    """Run jobs of one provider until SIGINT or SIGTERM; then give back what does not end in time."""
    if provider not in found.providers:
        raise ConfigError(f"there is no provider {provider!r} in the configuration ({found.source})")
    if found.providers[provider].timeout > chosen.job_timeout:
        raise ConfigError(f"providers.{provider}.timeout is longer than SLUICE_JOB_TIMEOUT, {chosen.job_timeout:g} s")
    name = f"{socket.gethostname()}:{os.getpid()}"
    client = call.session(connections=chosen.worker_slots, connect_timeout=chosen.connect_timeout)
    async with _stores(chosen, f"sluice-worker-{provider}", by_key=True) as (engine, line, redis), client:
        finisher = Finisher(engine, line)
        raiser = Raiser(engine)
        context = Context(found, chosen, client, finisher, line, alert=raiser.alert)
        worker = PoolWorker(context, engine, redis, provider=provider, name=name)
        if not await _begun(worker):
            return
        logger.info("pool.started", provider=provider, worker=name, slots=chosen.worker_slots)
        async with asyncio.TaskGroup() as keepers:  # should one of them break, the pool ends and is started again
            probing = probe(line, client, found.providers[provider], name=provider)
            keeping = [
                keepers.create_task(work) for work in (worker.keep_lease(), worker.listen_for_cancels(), probing)
            ]
            try:
                await worker.async_run()
            except asyncio.CancelledError:
                logger.info("pool.stopping", provider=provider, running=len(worker.tasks))
            finally:
                await worker.wind_down()
                for task in keeping:
                    task.cancel()
                await context.checker.close()
                await raiser.end()
        with suppress(Unavailable):  # then it runs out
            await worker.close_lease()


async def _begun(worker: PoolWorker) -> bool:
    """Open the worker's lease, waiting for Postgres; False where we were asked to end meanwhile."""
    opening = asyncio.create_task(_until_available(worker.open_lease))

    def stop(_: signal.Signals) -> None:  # arq's own handler ends its main task only, which is yet to come
        opening.cancel()

    worker.on_stop = stop
    await asyncio.wait([opening])
    if opening.cancelled():
        logger.info("pool.stopping", provider=worker.provider, running=0)
        return False
    await opening
    return True


async def deliver(chosen: Settings, found: Config) -> None:
    """Deliver webhooks, and alerts to the operator's channels, until SIGINT or SIGTERM."""
    keys = chosen.secrets_keys
    if keys is None:
        raise ConfigError("SLUICE_SECRETS_KEY must be set, to sign webhooks; make one with `openssl rand -base64 32`")
    _raise_open_files()
    sending = destination.session(found.webhooks.allow_private_networks, limit=MOST_AT_ONCE)
    channels = Channels(found.alerts.channels)
    async with _stores(chosen, "sluice-deliver", by_key=True) as (engine, line, _), sending as client, channels:
        await _until_available(lambda: seal_all(engine, keys))
        signers = Signers(engine, keys)
        deliverer = Deliverer(
            engine, line, client, webhooks=found.webhooks, signers=signers, timeout=chosen.webhook_timeout
        )
        await _until_signalled(_together(deliverer.run(), Alerter(engine, channels).run()))


def _raise_open_files() -> None:
    """Let this process have as many files open as it may: by default it may have fewer than connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # a system may have a limit besides that it does not tell
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def maintain(chosen: Settings, found: Config) -> None:
    """Repair and tend until SIGINT or SIGTERM."""
    async with (
        _stores(chosen, "sluice-maintain") as (engine, line, _),
        aclosing(storage.create(found.files, engine)) as storages,
    ):
        maintenance = Maintenance(engine, line, max_attempts=chosen.max_attempts, lease=chosen.lease)

        async def remove_files() -> None:
            await remove_gone(engine, storages)

        sweeping = maintenance.run(every=chosen.sweep_interval)
        files = repeat(remove_files, every=FILES_SECONDS)
        waiting = dependants.watch(engine, line, most_bytes=chosen.max_body_bytes)
        await _until_signalled(_together(sweeping, files, waiting))


async def _together(*works: Coroutine[object, object, None]) -> None:
    async with asyncio.TaskGroup() as tasks:  # should one of them break, the process ends and is started again
        for work in works:
            tasks.create_task(work)


async def _until_available(work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            return await work()
        except Unavailable as error:
            logger.warning("start.delayed", error=str(error))
            await asyncio.sleep(_AWAY_SECONDS)


async def _until_signalled(work: Awaitable[None]) -> None:
    running = asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        logger.info("worker.stopped")


def main(arguments: list[str]) -> None:
    """Entry of the process."""
    try:
        chosen = settings.load()
        found = config.load(chosen.config, os.environ)
        log.configure(chosen.log_level, chosen.log_format)
        gc.freeze()  # what is loaded by now stays: the collector need not look through it again and again
        match arguments:
            case ["pool", provider]:
                uvloop.run(pool(chosen, found, provider))
            case ["deliver"]:
                uvloop.run(deliver(chosen, found))
            case ["maintain"]:
                uvloop.run(maintain(chosen, found))
            case _:
                sys.exit("usage: python -m workers pool PROVIDER | deliver | maintain")
    except ConfigError as error:
        sys.exit(f"sluice worker: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
