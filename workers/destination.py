"""Where webhooks may really go: every address is checked right before it is connected to, after its name was resolved.

So a name that resolves to something else the second time, or a literal address, gains nothing.
"""

import errno
import socket
from collections.abc import Sequence

import aiohttp

from shared.webhook_url import Network, address_allowed


class Forbidden(OSError):
    """The address is on a private network that the configuration does not allow; aiohttp wraps it."""


def connector(allowed: Sequence[Network], *, limit: int) -> aiohttp.TCPConnector:
    """Return a connector that connects to global addresses, and to those in `allowed`, and to no others.

    A request to another raises `aiohttp.ClientConnectorError` before a packet is sent. `limit` is how many connections
    there are at once. A caller must not follow redirects: a receiver's answer is no address to send events to.
    """

    def make_socket(found: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = found
        if not address_allowed(str(address[0]).partition("%")[0], allowed):
            # Without the address: the receiver's owner reads this, and need not learn what our names resolve to.
            raise Forbidden(errno.EACCES, "the host is on a network that webhooks may not be sent to")
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made

    return aiohttp.TCPConnector(limit=limit, limit_per_host=20, force_close=True, socket_factory=make_socket)
