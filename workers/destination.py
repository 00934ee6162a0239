"""Where webhooks may really go: every address is checked right before it is connected to, after its name was resolved.

So a name that resolves to something else the second time, or a literal address, gains nothing.
"""

import errno
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver

from shared.webhook_url import Network, address_allowed
from workers import names

MOST_INFORMATIONAL = 20
KEPT_SECONDS = 15.0
"""How long a connection is kept that nobody uses."""


class Forbidden(OSError):
    """The address is on a private network that the configuration does not allow; aiohttp wraps it."""


def connector(allowed: Sequence[Network], *, limit: int, resolver: AbstractResolver) -> aiohttp.TCPConnector:
    """Return a connector that connects to global addresses, and to those in `allowed`, and to no others.

    A request to another raises `aiohttp.ClientConnectorError` before a packet is sent. `limit` is how many connections
    there are at once. A caller must not follow redirects: a receiver's answer is no address to send events to.

    Connections are kept for the next request to the same host, port and scheme. What a name resolves to meanwhile does
    not matter to them: they lead where they led when they were checked.
    """

    def make_socket(found: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = found
        if not address_allowed(str(address[0]).partition("%")[0], allowed):
            # Without the address: the receiver's owner reads this, and need not learn what our names resolve to.
            raise Forbidden(errno.EACCES, "the host is on a network that webhooks may not be sent to")
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made

    return aiohttp.TCPConnector(
        limit=limit, keepalive_timeout=KEPT_SECONDS, socket_factory=make_socket, resolver=resolver
    )


class _Response(aiohttp.ClientResponse):
    """An answer of a receiver that may not go on and on saying that it goes on (1xx), which would be read for ever."""

    _reads = 0

    @property
    def _protocol(self) -> Any:
        # It is asked for once for each answer that is read: the informational ones, and the one that counts.
        self._reads += 1
        if self._reads > MOST_INFORMATIONAL:
            raise aiohttp.ClientPayloadError("the receiver sends one informational answer after the other")
        return self._read_from

    @_protocol.setter
    def _protocol(self, protocol: Any) -> None:
        self._read_from = protocol


@asynccontextmanager
async def session(allowed: Sequence[Network], *, limit: int) -> AsyncIterator[aiohttp.ClientSession]:
    """Have a client of such a connector that keeps no cookies, of any receiver for any other, and unpacks nothing."""
    resolver = names.resolver()
    try:
        async with aiohttp.ClientSession(
            connector=connector(allowed, limit=limit, resolver=resolver),
            headers={"user-agent": "sluice-webhooks", "accept-encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            response_class=_Response,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None),  # `post` has its own
        ) as client:
            yield client
    finally:
        await resolver.close()
