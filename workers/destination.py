"""Where webhooks may really go: every address is checked right before it is connected to, after its name was resolved.

So a name that resolves to something else the second time, or a literal address, gains nothing.
"""

import errno
import socket
from collections.abc import Sequence

import aiohttp

from shared.webhook_url import Network, address_allowed

KEPT_SECONDS = 15.0
"""How long a connection is kept that nobody uses."""


class Forbidden(OSError):
    """The address is on a private network that the configuration does not allow; aiohttp wraps it."""


def connector(allowed: Sequence[Network], *, limit: int) -> aiohttp.TCPConnector:
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

    return aiohttp.TCPConnector(limit=limit, keepalive_timeout=KEPT_SECONDS, socket_factory=make_socket)


def session(allowed: Sequence[Network], *, limit: int) -> aiohttp.ClientSession:
    """Return a client of such a connector that keeps no cookies, of any receiver for any other, and unpacks nothing."""
    return aiohttp.ClientSession(
        connector=connector(allowed, limit=limit),
        headers={"user-agent": "sluice-webhooks", "accept-encoding": "identity"},
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None),  # `post` has its own
    )
