"""Which gateway the command line talks to, with which key, and what a person is told while it waits."""

import re
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from shared.cli.client import Address, Client, CliError, find_address


def test_what_is_given_comes_before_the_environment() -> None:
    environ = {"SLUICE_URL": "http://env:1", "SLUICE_API_KEY": "env"}
    assert find_address(environ, url="https://given:2/v1", key="k") == Address("https://given:2", "k")
    assert find_address(environ) == Address("http://env:1", "env")


def test_without_an_address_it_is_this_machine_s(tmp_path: Path) -> None:
    environ = {"SLUICE_DATA_DIR": str(tmp_path)}
    assert find_address(environ) == Address("http://127.0.0.1:8080", None)
    assert find_address({**environ, "SLUICE_PORT": "9000"}).url == "http://127.0.0.1:9000"


def test_the_key_is_the_caller_s_then_the_admin_s_then_the_kept_one(tmp_path: Path) -> None:
    (tmp_path / "admin_key").write_text("kept\n")
    environ = {"SLUICE_DATA_DIR": str(tmp_path)}
    assert find_address(environ).key == "kept"
    assert find_address({**environ, "SLUICE_ADMIN_KEY": "admin"}).key == "admin"
    assert find_address({**environ, "SLUICE_ADMIN_KEY": "admin", "SLUICE_API_KEY": "own"}).key == "own"


def test_the_key_is_not_shown_by_accident() -> None:
    assert "secret" not in repr(Address("http://x", "secret"))


def test_an_address_without_a_scheme_is_refused() -> None:
    with pytest.raises(CliError, match="http://"):
        find_address({}, url="localhost:8080")


async def test_each_wait_for_a_limit_is_said_once() -> None:
    codes = ["rate_limit_exceeded", "queue_full"]

    async def answer(_: web.Request) -> web.Response:
        if codes:
            refusal = {"error": {"code": codes.pop(0), "message": "later"}}
            return web.json_response(refusal, status=429, headers={"Retry-After": "0"})
        return web.json_response({"object": "batch"})

    app = web.Application()
    app.router.add_get("/v1/batches/b", answer)
    told: list[str] = []
    async with (
        TestServer(app) as server,
        Client(Address(str(server.make_url("")), None), on_wait=told.append) as client,
    ):
        assert await client.get("/v1/batches/b") == {"object": "batch"}
    assert [re.sub(r"\d+", "N", text) for text in told] == [
        "rate limited, trying again in N s",
        "the queue is full, trying again in N s",
    ]
