"""Which addresses a webhook may go to. Pure: the URL's form at submit, the resolved address at connect time."""

import re
import unicodedata
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

LONGEST = 2048
NOT_A_HOST = "is at a host that this tenant sends no webhooks to"
_NUMBER = re.compile(r"\d+|0[xX][0-9a-fA-F]*")
_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NAT64 = ip_network("64:ff9b::/96")
# The one block IPv6 unicast addresses are given from; `is_global` alone takes the old site-local ones for global.
_UNICAST6 = ip_network("2000::/3")
# Relays of 6to4, given up in 2015: what answers there is somebody's own.
_RELAYS = ip_network("192.88.99.0/24")


def fault(url: str, *, allow_http: bool, allowed: Sequence[Network] = ()) -> str | None:
    """Return what is wrong with a webhook's URL, or None. A host name is judged when it is resolved."""
    if len(url) > LONGEST:
        return f"is longer than {LONGEST} characters"
    if not url.isprintable() or " " in url or "\\" in url:
        return "contains characters that no URL has"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme != "https" and not (allow_http and parts.scheme == "http"):
        return "must be an http or https URL" if allow_http else "must be an https URL"
    if not parts.hostname or port == 0:
        return "has no host" if not parts.hostname else "has port 0"
    if parts.username is not None or parts.password is not None:
        return "must not hold a user name or password"
    if parts.fragment:
        return "must not have a fragment"
    # Resolvers read other digits and dots as those of ASCII, and one dot at the end means nothing.
    host = unicodedata.normalize("NFKC", parts.hostname).replace("\u3002", ".").removesuffix(".")
    try:
        literal = ip_address(host)
    except ValueError:
        # What resolvers take for an address in another spelling: 127.1, 0x7f.1, 0177.0.0.1, 2130706433.
        return "has a number for a host" if _NUMBER.fullmatch(host.rpartition(".")[2]) else None
    return None if address_allowed(literal, allowed) else "is an address on a private network"


def address_allowed(address: Address | str, allowed: Sequence[Network] = ()) -> bool:
    """Tell whether a webhook may be sent to a resolved address: a global unicast one, or one in an allowed network.

    An IPv4 address inside an IPv6 one (mapped, NAT64, 6to4, Teredo) is judged itself.
    """
    found = ip_address(address) if isinstance(address, str) else address
    inner = _embedded(found)
    if any(found in network or (inner is not None and inner in network) for network in allowed):
        return True
    if inner is not None:
        return address_allowed(inner)
    if isinstance(found, IPv6Address) and found not in _UNICAST6:
        return False
    return found.is_global and not found.is_multicast and not found.is_reserved and found not in _RELAYS


def host_pattern(text: str) -> str:
    """Return a host's name, or `*.` and one for all that end in it, as it is compared. Raises ValueError."""
    pattern = text.lower().removesuffix(".")
    if len(pattern) > 253 or not _NAME.fullmatch(pattern.removeprefix("*.")):
        raise ValueError("must be the name of a host in ASCII (xn--… where it has other letters), or `*.` and one")
    return pattern


def host_allowed(url: str, patterns: Sequence[str] | None) -> bool:
    """Tell whether the host of a URL without fault is one of these, or below one that begins with `*.`; None: any.

    Names that are not in ASCII are none of them: there are several ways to read one.
    """
    if patterns is None:
        return True
    host = (urlsplit(url).hostname or "").removesuffix(".")
    if not _NAME.fullmatch(host):
        return False
    return any(host.endswith(one[1:]) if one.startswith("*.") else host == one for one in patterns)


def _embedded(address: Address) -> IPv4Address | None:
    if isinstance(address, IPv4Address):
        return None
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour
