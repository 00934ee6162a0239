"""Values that stand in several sections of the configuration: durations, addresses. Faults name no value."""

import re
from urllib.parse import urlsplit

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, None: 1.0}


def seconds(value: object) -> object:
    """Return a duration such as `120s` in seconds; what is no text is left to others. Raises ValueError."""
    if isinstance(value, bool):
        raise ValueError("must be a duration such as 120s, 2m or 120")
    if not isinstance(value, str):
        return value
    if not (match := _DURATION.fullmatch(value.strip())):
        raise ValueError("must be a duration such as 120s, 2m or 120")
    return float(match[1]) * _UNITS[match[2]]


def http_url(value: str) -> str:
    """Return an address that paths are appended to, without a slash at its end. Raises ValueError."""
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and value.isprintable()
    except ValueError:
        good = False
    if not good or " " in value:
        raise ValueError("must be an http or https URL")
    if parts.query or parts.fragment:
        raise ValueError("must not have a query or fragment, since paths are appended to it")
    return value.rstrip("/")
