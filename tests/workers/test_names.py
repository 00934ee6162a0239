"""The look-up of names against a server of names that answers some, at its pace, and others never."""

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator
from ipaddress import ip_network
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from workers import destination, names
from workers.names import Names

DEAD = 100
"""Names: more than an event loop has threads, less than fills the socket of a server of names."""


class Server(asyncio.DatagramProtocol):
    """Knows every name as 127.0.0.9; names that begin with `dead` get no answer, with `none` one that says no.

    Those that begin with `turns` are 127.0.0.9 when they are first asked for, and 127.0.0.1 from then on.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.told: set[str] = set()
        self.busy = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        labels, at = [], 12
        while size := data[at]:
            labels.append(data[at + 1 : at + 1 + size].decode().lower())
            at += size + 1
        name, question = ".".join(labels), data[12 : at + 5]
        self.asked.append(name)
        if len(self.asked) >= DEAD:
            self.busy.set()
        if name.startswith("dead"):
            return
        records, answer = 0, b""
        if data[at + 1 : at + 3] == b"\0\1" and not name.startswith("none"):
            last = 1 if name in self.told and name.startswith("turns") else 9
            records, answer = 1, b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + bytes([127, 0, 0, last])
            self.told.add(name)
        flags = b"\x81\x83" if name.startswith("none") else b"\x81\x80"
        head = data[:2] + flags + struct.pack("!HHHH", 1, records, 0, 0)
        self._transport.sendto(head + question + answer, addr)


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, Names]]:
    loop = asyncio.get_running_loop()
    transport, made = await loop.create_datagram_endpoint(Server, local_addr=("127.0.0.1", 0))
    looking = Names([f"127.0.0.1:{transport.get_extra_info('sockname')[1]}"])
    yield made, looking
    await looking.close()
    transport.close()


async def addresses(looking: Names, name: str) -> list[str]:
    found = await looking.resolve(name, 443, socket.AF_UNSPEC)
    assert all(one["hostname"] == name and one["port"] == 443 for one in found)
    return [one["host"] for one in found]


async def test_names_whose_server_is_dead_delay_no_other(server: tuple[Server, Names]) -> None:
    made, looking = server
    dead = [asyncio.create_task(addresses(looking, f"dead{number}.example.")) for number in range(DEAD)]
    await asyncio.wait_for(made.busy.wait(), 10)
    begun = time.monotonic()
    assert await addresses(looking, "works.example.") == ["127.0.0.9"]
    assert time.monotonic() - begun < 1
    assert not any(one.done() for one in dead)
    for one in dead:
        one.cancel()
    await asyncio.gather(*dead, return_exceptions=True)


async def test_the_hosts_file_is_asked_first(server: tuple[Server, Names]) -> None:
    made, looking = server
    assert "127.0.0.1" in await addresses(looking, "localhost")
    assert made.asked == []


@pytest.mark.parametrize("name", ["none.example.", "a..b", "x" * 64 + ".example", "works\0.example."])
async def test_what_is_no_name_is_said_at_once(server: tuple[Server, Names], name: str) -> None:
    begun = time.monotonic()
    with pytest.raises(OSError, match=r".+"):
        await server[1].resolve(name, 443, socket.AF_UNSPEC)
    assert time.monotonic() - begun < 1


async def test_a_machine_without_a_server_of_names_fails_fast() -> None:
    looking = Names(["127.0.0.1:9"])
    begun = time.monotonic()
    with pytest.raises(OSError, match="DNS"):
        await looking.resolve("receiver.example.", 443, socket.AF_UNSPEC)
    assert time.monotonic() - begun < 2
    await looking.close()


async def test_a_server_that_never_answers_is_not_waited_for_for_long(
    server: tuple[Server, Names], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "LOOK_UP_SECONDS", 0.1)
    with pytest.raises(OSError, match=r"not looked up within 0\.1 s"):
        await server[1].resolve("dead.example.", 443, socket.AF_UNSPEC)


async def test_a_name_that_turns_to_this_machine_is_not_followed(server: tuple[Server, Names]) -> None:
    _, looking = server
    reached = []

    async def answer(request: web.BaseRequest) -> web.Response:
        reached.append(request.path)
        return web.Response()

    listening = await asyncio.get_running_loop().create_server(web.Server(answer), "0.0.0.0", 0)
    port = listening.sockets[0].getsockname()[1]
    connector = destination.connector([ip_network("127.0.0.9/32")], limit=5, resolver=looking)
    async with aiohttp.ClientSession(connector=connector) as client:
        async with client.post(f"http://turns.example:{port}/first", headers={"connection": "close"}) as got:
            assert got.status == 200
        connector.clear_dns_cache()
        with pytest.raises(aiohttp.ClientConnectorError, match="may not be sent to"):
            await client.post(f"http://turns.example:{port}/second")
    listening.close()
    assert reached == ["/first"]
