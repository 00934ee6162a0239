"""Postgres or Redis away: 503 with Retry-After, nothing lost, and recovery without a restart."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from shared.db import migrate
from shared.embedded import postgres, redis
from shared.embedded.server import Server
from tests.gateway import Gateway, gateway, line, until


@asynccontextmanager
async def own_servers(tmp_path: Path) -> AsyncIterator[tuple[Gateway, Server, Server]]:
    """Run a front door, with maintenance, on servers that the test may kill."""
    with tempfile.TemporaryDirectory(prefix="sluice-away-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        async with postgres.running(directory) as database, redis.running(directory) as queue:
            await migrate.upgrade(database.url)
            async with gateway(tmp_path, database.url, queue.url, parts=("api", "maintain")) as api:
                yield api, database, queue


async def test_a_store_that_is_away_is_503_and_comes_back_by_itself(tmp_path: Path) -> None:
    async with own_servers(tmp_path) as (api, database, queue):
        accepted: list[str] = []

        async def answer(method: str, path: str, body: Any = None) -> int:
            status, shape, headers = await api.ask(method, path, body)
            if status == 503:
                assert (shape["error"]["code"], shape["error"]["type"]) == ("unavailable", "server_error")
                assert 0 < int(headers["Retry-After"]) <= 60
            assert status in (200, 202, 503), shape
            return status

        async def submit() -> int:
            status, shape, _ = await api.ask("POST", "/v1/jobs", line())
            if status == 202:
                accepted.append(shape["id"])
            return status

        async def submit_batch() -> int:
            return await answer("POST", "/v1/batches", {"requests": [line(), line()]})

        async def ready() -> tuple[int, str, str]:
            assert (await api.ask("GET", "/healthz"))[0] == 200
            status, shape, headers = await api.ask("GET", "/readyz")
            assert status == 200 or 0 < int(headers["Retry-After"]) <= 60
            return status, shape["postgres"], shape["redis"]

        assert await submit() == 202
        await queue.child.kill()
        # One that was committed before anyone knew is accepted; from then on nothing is stored.
        await until(submit, lambda status: status == 503)
        assert await answer("POST", "/v1/jobs", line()) == 503
        assert await submit_batch() == 503
        assert await answer("GET", f"/v1/jobs/{accepted[0]}") == 200
        assert await ready() == (503, "ok", "away")
        await queue.child.start()
        await until(ready, lambda found: found == (200, "ok", "ok"))
        await until(submit, lambda status: status == 202)
        assert await submit_batch() == 202

        await database.child.kill()
        await until(submit, lambda status: status == 503)
        for method, path, body in (
            ("POST", "/v1/jobs", line()),
            ("POST", "/v1/batches", {"requests": [line()]}),
            ("GET", "/v1/jobs", None),
            ("GET", f"/v1/jobs/{accepted[0]}", None),
            ("POST", f"/v1/jobs/{accepted[0]}/cancel", None),
        ):
            assert await answer(method, path, body) == 503, (method, path)
        assert await ready() == (503, "away", "ok")
        await database.child.start()
        await until(ready, lambda found: found == (200, "ok", "ok"))
        await until(submit, lambda status: status == 202)

        for id_ in accepted:
            assert (await api.job(id_))["status"] == "queued"
