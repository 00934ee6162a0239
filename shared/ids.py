"""Identifiers: UUIDv7 inside, `job_…`/`batch_…` outside.

A UUIDv7 begins with its time, so rows arrive in index order, a partition of a table is a span of time, and "newest
first" is an order by id.
"""

import os
import time
from typing import Literal
from uuid import UUID

Prefix = Literal[
    "job",
    "batch",
    "evt",
    "tenant",
    "team",
    "key",
    "audit",
    "budget",
    "limit",
    "alert",
    "file",
    "resp",
    "msgbatch",
    "webhook",
    "delivery",
]

_COUNTER_BITS = 12
_random: list[int] = []
_last = 0
"""The last id's milliseconds and, below them, its counter."""


def new_id() -> UUID:
    """Return a UUIDv7 (RFC 9562 §5.7, §6.2 method 1), strictly increasing within this process."""
    global _last  # noqa: PLW0603 - the monotonic counter is the process's
    # A fresh millisecond begins in the lower half of its counter; a full one runs over into the next millisecond.
    noise = _noise()
    _last = max((time.time_ns() // 1_000_000) << _COUNTER_BITS | noise >> 62 << 3, _last + 1)
    ms, counter = _last >> _COUNTER_BITS, _last & 0xFFF
    return UUID(int=ms << 80 | 0x7 << 76 | counter << 64 | 0x2 << 62 | noise & 0x3FFF_FFFF_FFFF_FFFF)


def _noise() -> int:
    """Return 70 random bits of the operating system's, which is asked for many at a time."""
    if not _random:
        drawn = os.urandom(9 * 512)
        _random.extend(int.from_bytes(drawn[start : start + 9]) >> 2 for start in range(0, len(drawn), 9))
    return _random.pop()


def lowest_id_at(unix_ms: int) -> UUID:
    """Return the smallest UUIDv7 of a millisecond: the bound of a partition or of a `created_after` filter."""
    return UUID(int=unix_ms << 80 | 0x7 << 76 | 0x2 << 62)


def show(prefix: Prefix, id_: UUID) -> str:
    """Return the public form of an id, e.g. `job_0199…`."""
    return f"{prefix}_{id_.hex}"


def parse(prefix: Prefix, text: str) -> UUID | None:
    """Return the id behind its public form, or None where the text is not one of this prefix."""
    head, _, digits = text.partition("_")
    if head != prefix or len(digits) != 32:
        return None
    try:
        found = UUID(hex=digits)
    except ValueError:
        return None
    return found if found.hex == digits else None  # `UUID` takes capitals and underscores too
