"""The connector against real sockets: who is on this machine's own network is not reached unless allowed."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from ipaddress import ip_network

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from shared.webhook_url import Network
from tests.unit.test_webhook_url import INSIDE, PRIVATE, SPELLED
from workers import destination

ONE: list[Network] = [ip_network("127.0.0.1/32")]
EVERYWHERE: list[Network] = [ip_network("0.0.0.0/0"), ip_network("::/0")]
TIMEOUT = aiohttp.ClientTimeout(total=10)


@dataclass
class Receiver:
    """A server on several of this machine's loopback addresses; `reached` has the one of each connection."""

    port: int = 0
    reached: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


class Noting(web.RequestHandler):
    """Notes a connection when it is made, whether or not a request follows."""

    def __init__(self, server: web.Server, *, noted: list[str], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(server, loop=loop)
        self._noted = noted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._noted.append(transport.get_extra_info("sockname")[0])
        super().connection_made(transport)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        found.paths.append(request.path)
        if request.path == "/redirect":
            return web.Response(status=302, headers={"location": f"http://127.0.0.1:{found.port}/inside"})
        return web.Response(text="received")

    server, loop = web.Server(answer), asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as open_servers:
        for address in ("127.0.0.1", "127.0.0.2", "::1"):
            with contextlib.suppress(OSError) if address == "::1" else contextlib.nullcontext():  # not all have IPv6
                listening = await loop.create_server(
                    lambda: Noting(server, noted=found.reached, loop=loop), address, found.port
                )
                open_servers.callback(listening.close)
                found.port = listening.sockets[0].getsockname()[1]
        yield found
        await server.shutdown(timeout=1)


async def post(url: str, allowed: list[Network]) -> int:
    async with (
        destination.session(allowed, limit=5) as client,
        client.post(url, data=b"{}", allow_redirects=False, timeout=TIMEOUT) as response,
    ):
        return response.status


class Names(AbstractResolver):
    """Resolves every name to the next of some answers: names in these tests have addresses that no real name has."""

    def __init__(self, answers: list[list[str]]) -> None:
        self._answers = answers

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            {"hostname": host, "host": address, "port": port, "family": _family(address), "proto": 0, "flags": 0}
            for address in self._answers.pop(0)
        ]

    async def close(self) -> None:
        pass


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@contextlib.asynccontextmanager
async def resolving(allowed: list[Network], *answers: list[str]) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of our connector whose look-ups give `answers`, one after another."""
    connector = destination.connector(allowed, limit=5, resolver=Names(list(answers)))
    connector._use_dns_cache = False
    async with aiohttp.ClientSession(connector=connector, timeout=TIMEOUT) as client:
        yield client


REACHABLE = ["127.0.0.1", "127.0.0.2", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"]


@pytest.mark.parametrize(
    "host", [*REACHABLE, "localhost.", "[::1]", "[::]", "127.1", "2130706433", "0x7f.1", "0177.0.0.1"]
)
async def test_this_machine_is_not_reached(receiver: Receiver, host: str) -> None:
    with pytest.raises(aiohttp.ClientError):
        await post(f"http://{host}:{receiver.port}/", [])
    assert receiver.reached == []


@pytest.mark.parametrize("host", REACHABLE)
async def test_it_is_where_it_is_allowed(receiver: Receiver, host: str) -> None:
    assert await post(f"http://{host}:{receiver.port}/hook", EVERYWHERE) == 200
    assert receiver.paths == ["/hook"]


@pytest.mark.parametrize("host", [*REACHABLE, "[::1]"])
async def test_the_refusal_is_ours_and_names_no_resolved_address(receiver: Receiver, host: str) -> None:
    with pytest.raises(aiohttp.ClientConnectorError) as caught:
        await post(f"http://{host}:{receiver.port}/", [])
    assert isinstance(caught.value.os_error, destination.Forbidden)
    assert caught.value.os_error.strerror == "the host is on a network that webhooks may not be sent to"
    assert host != "localhost" or "127.0.0" not in str(caught.value)


async def test_only_the_allowed_address_is_reached(receiver: Receiver) -> None:
    assert await post(f"http://127.0.0.1:{receiver.port}/", ONE) == 200
    with pytest.raises(aiohttp.ClientConnectorError):
        await post(f"http://127.0.0.2:{receiver.port}/", ONE)
    assert receiver.reached == ["127.0.0.1"]


async def test_a_name_is_reached_on_the_allowed_one_of_its_addresses(receiver: Receiver) -> None:
    async with (
        resolving(ONE, ["127.0.0.2", "127.0.0.1"]) as client,
        client.post(f"http://receiver.example:{receiver.port}/") as response,
    ):
        assert response.status == 200
    assert receiver.reached == ["127.0.0.1"]


async def test_a_name_that_resolves_to_another_address_the_second_time(receiver: Receiver) -> None:
    async with resolving(ONE, ["127.0.0.1"], ["127.0.0.2"]) as client:
        url = f"http://receiver.example:{receiver.port}/"
        async with client.post(url, headers={"connection": "close"}) as response:
            assert response.status == 200
        with pytest.raises(aiohttp.ClientConnectorError):
            await client.post(url)
    assert receiver.reached == ["127.0.0.1"]


async def test_a_redirect_is_an_answer(receiver: Receiver) -> None:
    assert await post(f"http://127.0.0.1:{receiver.port}/redirect", ONE) == 302
    assert receiver.paths == ["/redirect"]


@pytest.mark.parametrize("host", SPELLED)
async def test_no_spelling_of_a_private_address_is_connected_to(receiver: Receiver, host: str) -> None:
    with pytest.raises((aiohttp.ClientError, ValueError)):
        await post(f"http://{host}:{receiver.port}/", [])
    assert receiver.reached == []


@pytest.mark.parametrize("address", [*PRIVATE[1:], *INSIDE["10.0.0.1"], *INSIDE["100.64.0.1"]])
async def test_a_name_that_turns_into_a_private_address_is_not_followed_there(receiver: Receiver, address: str) -> None:
    """What a server of names does that gives a good address when it is asked first, and another afterwards."""
    async with resolving(ONE, ["127.0.0.1"], [address]) as client:
        url = f"http://rebinding.example:{receiver.port}/"
        async with client.post(url, headers={"connection": "close"}) as response:
            assert response.status == 200
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await client.post(url)
    assert isinstance(caught.value.os_error, destination.Forbidden)
    assert receiver.reached == ["127.0.0.1"]
