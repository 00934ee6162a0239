"""Names of receivers, looked up without a thread for each: a name whose own server is dead delays no other name.

`getaddrinfo` is a thread for every name that is asked, and there are few; c-ares asks for all of them at once.
"""

import asyncio
import socket
from contextlib import suppress
from functools import partial
from typing import Any

import aiohttp
import pycares
import structlog
from aiohttp.abc import AbstractResolver, ResolveResult

log = structlog.get_logger(__name__)

LOOK_UP_SECONDS = 10.0
_TRIES = 4
"""Of which the first may wait for a quarter of a second only: c-ares learns how fast the server of names is."""


def resolver() -> AbstractResolver:
    """Return what looks names up: `Names`, or threads where a machine has no inotify left for it."""
    try:
        return Names()
    except pycares.AresError as error:
        log.warning("names.threaded", error=str(error))
        return aiohttp.ThreadedResolver()


class Names(AbstractResolver):
    """The hosts file, then the servers of the resolver configuration, or these, any number of names at a time."""

    def __init__(self, servers: list[str] | None = None) -> None:
        self._channel = pycares.Channel(tries=_TRIES, servers=servers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return a name's addresses; `OSError` where it has none, or they are not known in `LOOK_UP_SECONDS`."""
        if "\0" in host:  # in C it would end there
            raise OSError(None, "it is no name")
        loop = asyncio.get_running_loop()
        found = loop.create_future()

        def called(result: Any, error: int | None) -> None:  # in c-ares's thread
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(partial(_settle, found, result, error))

        try:
            self._channel.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, callback=called)
            async with asyncio.timeout(LOOK_UP_SECONDS):
                result = await found
        except (pycares.AresError, UnicodeError, ValueError) as error:
            raise OSError(None, f"it is no name: {error}") from error
        except TimeoutError:
            raise OSError(None, f"it was not looked up within {LOOK_UP_SECONDS:g} s") from None
        addresses = [(node.family, node.addr[0].decode()) for node in result.nodes]
        return [
            ResolveResult(
                hostname=host, host=address, port=port, family=kind, proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, address in addresses
        ]  # fmt: skip

    async def close(self) -> None:
        """Give up what is being looked up."""
        self._channel.cancel()
        self._channel.close()


def _settle(found: asyncio.Future[Any], result: Any, error: int | None) -> None:
    if found.done():  # nobody waits any longer
        return
    if error is None:
        found.set_result(result)
    else:
        found.set_exception(OSError(None, pycares.errno.strerror(error)))
