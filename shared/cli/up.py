"""`sluice up`: servers, migration, and every process of the gateway as children that are restarted when they die."""

import asyncio
import errno
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
from pydantic import SecretStr

from shared import config, log, sealing, settings
from shared.config import Config
from shared.db import migrate
from shared.embedded import postgres, redis
from shared.embedded.children import Child, ChildSpec, supervise
from shared.errors import SluiceError
from shared.settings import Settings

READY_SECONDS = 30.0


async def run() -> None:
    """Run everything until SIGINT or SIGTERM. Raises SluiceError where a part cannot start."""
    chosen = settings.load()
    log.configure(chosen.log_level, chosen.log_format)
    found = config.load(chosen.config, os.environ)
    _refuse_taken(chosen.host, chosen.port)
    chosen.data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    _cancel_on_signal()
    async with AsyncExitStack() as stack:
        servers = []
        database_url, redis_url = chosen.database_url, chosen.redis_url
        if database_url is None:
            server = await stack.enter_async_context(postgres.running(chosen.data_dir))
            servers.append(server.child)
            database_url = server.url
        if redis_url is None:
            server = await stack.enter_async_context(redis.running(chosen.data_dir))
            servers.append(server.child)
            redis_url = server.url
        await migrate.upgrade(database_url)
        key, fresh = _kept(chosen.admin_key, chosen.data_dir / "admin_key", _new_admin_key)
        sealing_key, _ = _kept(chosen.secrets_key, chosen.data_dir / "secrets_key", sealing.new_key)
        given = {
            "SLUICE_DATABASE_URL": database_url,
            "SLUICE_REDIS_URL": redis_url,
            "SLUICE_ADMIN_KEY": key,
            "SLUICE_SECRETS_KEY": sealing_key,
        }
        upstream = []
        if any(provider.kind == "simulated" and provider.base_url is None for provider in found.providers.values()):
            port = _free_port()
            given["SLUICE_SIMULATED_URL"] = f"http://127.0.0.1:{port}/v1"
            upstream = [
                _python(
                    "simulated",
                    given,
                    "shared.embedded.upstream",
                    "--port",
                    str(port),
                    log_file=chosen.data_dir / "simulated.log",
                )
            ]
        _write_private(chosen.data_dir / "env", "".join(f"export {name}='{value}'\n" for name, value in given.items()))
        announcing = asyncio.create_task(_announce(chosen, found, key if fresh else None))
        try:
            await supervise(
                servers,
                upstream,
                [
                    _python("maintain", given, "workers", "maintain"),
                    _python("deliver", given, "workers", "deliver"),
                    *_pools(found.providers, given, chosen),
                ],
                [_python("api", given, "gateway_api", grace=chosen.shutdown_grace + 5)],
            )
        except asyncio.CancelledError:
            print("stopped", flush=True)
        finally:
            announcing.cancel()


async def run_pools(providers: Sequence[str]) -> None:
    """Run the pools of several providers, a process each, until SIGINT or SIGTERM."""
    chosen = settings.load()
    log.configure(chosen.log_level, chosen.log_format)
    _cancel_on_signal()
    try:
        await supervise(_pools(providers, {}, chosen))
    except asyncio.CancelledError:
        return


def _pools(providers: Sequence[str] | Mapping[str, object], given: Mapping[str, str], chosen: Settings) -> list[Child]:
    grace = chosen.shutdown_grace + 10  # the pool gives its jobs back in that time
    return [_python(f"worker {name}", given, "workers", "pool", name, grace=grace) for name in providers]


def _python(
    name: str,
    given: Mapping[str, str],
    module: str,
    *arguments: str,
    grace: float = 10.0,
    log_file: Path | None = None,
) -> Child:
    argv = [sys.executable, "-m", module, *arguments]
    return Child(ChildSpec(name=name, argv=argv, env=os.environ | given, grace=grace, log=log_file))


def _cancel_on_signal() -> None:
    task = asyncio.current_task()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel if task else lambda: None)


def _kept(given: SecretStr | None, path: Path, make: Callable[[], str]) -> tuple[str, bool]:
    """Return a secret (from the environment, else kept in the data directory), and whether it is new."""
    if given is not None and given.get_secret_value():
        return given.get_secret_value(), False
    if path.exists():
        return path.read_text().strip(), False
    made = make()
    _write_private(path, made + "\n")
    return made, True


def _new_admin_key() -> str:
    return f"sluice_{secrets.token_urlsafe(32)}"


def _write_private(path: Path, text: str) -> None:
    with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _refuse_taken(host: str, port: int) -> None:
    """Raise SluiceError where another process has the port: what is announced as ready would be that one."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SluiceError(f"port {port} is taken: set SLUICE_PORT") from None


async def _announce(chosen: Settings, found: Config, key: str | None) -> None:
    address = f"http://{chosen.host if chosen.host != '0.0.0.0' else '127.0.0.1'}:{chosen.port}"  # noqa: S104
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as client:
        while True:
            try:
                async with client.get(f"{address}/readyz") as answer:
                    if answer.status == 200:
                        break
            except (aiohttp.ClientError, OSError, TimeoutError):
                pass
            await asyncio.sleep(0.1)
    print(f"Sluice is ready at {address}  (dashboard: {address}/)")
    print(f"providers: {', '.join(found.providers)}  ({found.source})")
    if key is not None:
        print(f"admin key: {key}\n           (kept in {chosen.data_dir / 'admin_key'}; shown this once)")
    sys.stdout.flush()
