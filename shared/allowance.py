"""What a provider's answers say of its limits: one table of header names, and how to tell what window a limit is for.

What the queue does with it is not here, nor is `Retry-After` (`retry`).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

# Requests, tokens together, input tokens, output tokens: the names that the queue's scripts have for them.
Dimension = Literal["r", "t", "i", "o"]

_SECOND, _MINUTE, _LONGEST = 1.0, 60.0, 600.0
_MOST = 1e12  # above it a number is nonsense


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a provider says of one of its limits: how much a minute, how much is left now, and how much at once at most.

    `left` and `burst` are None where that is not said.
    """

    a_minute: float
    left: float | None
    burst: float | None


@dataclass(frozen=True, slots=True)
class _Family:
    """The headers of one limit, and its window: `window` seconds, or what `period` says, or what `reset` tells."""

    dimension: Dimension
    limit: str
    left: str
    reset: str
    window: float | None
    period: str | None
    beside: str | None


def _family(
    dimension: Dimension,
    names: str,
    *,
    window: float | None = None,
    period: str | None = None,
    beside: str | None = None,
) -> _Family:
    """Return the family whose headers' names are `names` with a word put in; it counts only where `beside` is sent."""
    limit, left, reset = (names.format(word) for word in ("limit", "remaining", "reset"))
    return _Family(dimension, limit, left, reset, window, period, beside)


# The first that says something of a dimension is believed. Limits a day, an hour or a month are not here: no pace.
_FAMILIES = (
    # OpenAI, Groq, most that speak OpenAI's dialect; Azure names the window in a header of its own
    _family("r", "x-ratelimit-{}-requests", period="x-ratelimit-renewalperiod-requests"),
    _family("t", "x-ratelimit-{}-tokens", period="x-ratelimit-renewalperiod-tokens"),
    _family("i", "x-ratelimit-{}-input-tokens"),
    _family("o", "x-ratelimit-{}-output-tokens"),
    # Anthropic: token buckets, all of them a minute's
    _family("r", "anthropic-ratelimit-requests-{}", window=_MINUTE),
    _family("t", "anthropic-ratelimit-tokens-{}", window=_MINUTE),
    _family("i", "anthropic-ratelimit-input-tokens-{}", window=_MINUTE),
    _family("o", "anthropic-ratelimit-output-tokens-{}", window=_MINUTE),
    # Mistral (`req`), Cerebras (`requests`)
    _family("r", "x-ratelimit-{}-req-minute", window=_MINUTE),
    _family("r", "x-ratelimit-{}-requests-minute", window=_MINUTE),
    _family("t", "x-ratelimit-{}-tokens-minute", window=_MINUTE),
    _family("r", "x-ratelimit-{}-req-second", window=_SECOND),
    _family("r", "x-ratelimit-{}-requests-second", window=_SECOND),
    _family("t", "x-ratelimit-{}-tokens-second", window=_SECOND),
    # Mistral's older names
    _family("t", "x-ratelimitbysize-{}-minute", window=_MINUTE),
    _family("t", "ratelimitbysize-{}"),
    # Fireworks says it in tokens a second
    _family("i", "x-ratelimit-{}-tokens-prompt", window=_SECOND),
    _family("o", "x-ratelimit-{}-tokens-generated", window=_SECOND),
    # Together: a second's too, by names that others have for a minute's; its tokens tell it from them
    _family("r", "x-ratelimit-{}", window=_SECOND, beside="x-tokenlimit-limit"),
    _family("t", "x-tokenlimit-{}", window=_SECOND),
    # OpenRouter, and who follows the old custom
    _family("r", "x-ratelimit-{}"),
    # the IETF's draft, up to its sixth version
    _family("r", "ratelimit-{}", period="ratelimit-policy"),
)

_LEAST: dict[Dimension, float] = {"r": 1.0, "t": 100.0, "i": 100.0, "o": 100.0}
"""What allows less a minute than this cannot be meant."""

_NUMBER = re.compile(r"[0-9]{1,13}(?:\.[0-9]{1,20})?")
_DURATION = re.compile(r"(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,12}(?:\.[0-9]{1,20})?)(s|ms|us|µs|ns))?")
_POLICY = re.compile(r"(?<![0-9.])([0-9]{1,13}); *w=([0-9]{1,9})")
_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def allowances(headers: Mapping[str, str], now: datetime | None = None) -> dict[Dimension, Allowance]:
    """Return what a provider's answer says of its limits; a dimension of which it says nothing is absent.

    `headers` has lower-case names. A limit is for a minute unless its name, its policy or its reset says otherwise. One
    for longer than ten minutes is no pace and is left out, and nonsense counts as absent: nothing is raised.
    """
    found: dict[Dimension, Allowance] = {}
    for family in _FAMILIES:
        if family.limit not in headers or family.dimension in found:
            continue
        if family.beside is None or family.beside in headers:
            allowance = _allowance(family, headers, now=now)
            if allowance is not None:
                found[family.dimension] = allowance
    return found


def _allowance(family: _Family, headers: Mapping[str, str], *, now: datetime | None) -> Allowance | None:
    text = headers[family.limit]
    listed = ";" in text  # the IETF's older drafts: `100, 100;w=60`
    limit = _number(re.split("[,;]", text, maxsplit=1)[0] if listed else text)
    if not limit:
        return None
    left = _number(headers.get(family.left))
    reset = _reset(headers.get(family.reset), now)
    window = family.window
    if window is None and family.period is not None:
        window = _named(headers.get(family.period, text if listed else None), limit)
    if window is None:
        window = _told(limit, left, reset=reset)
    if window > _LONGEST:
        return None
    a_minute = limit * _MINUTE / window
    if a_minute < _LEAST[family.dimension]:
        return None
    if left is None or reset is None:
        return Allowance(a_minute, left, None)
    burst = min(limit, left + reset[0] * a_minute / _MINUTE)
    return Allowance(a_minute, left, burst or None)  # a bucket for nothing: left and reset were not of one moment


def _told(limit: float, left: float | None, *, reset: tuple[float, float] | None) -> float:
    """Return the seconds of the window that a limit is for, by how long its bucket takes to be full again.

    A bucket that refills evenly is full after `window * (limit - left) / limit`. It is a minute unless even the least
    that the reset can mean takes longer than a minute's bucket would: some buckets hold less than a minute's worth.
    Where next to nothing was used, only the reset's own length tells.
    """
    if reset is None:
        return _MINUTE
    seconds, slack = reset
    used = 0.0 if left is None else limit - left
    if used < limit / 1000:
        return seconds if seconds > _LONGEST else _MINUTE
    if (seconds - slack) * limit / used <= 1.1 * _MINUTE:  # a tenth: left and reset are not quite of one moment
        return _MINUTE
    return seconds * limit / used


def _named(text: str | None, limit: float) -> float | None:
    """Return the seconds of the window as a header says: alone, or as the IETF's policy of this limit (`100;w=60`)."""
    if text is None:
        return None
    if 'qu="' in text and 'qu="requests"' not in text:
        return math.inf  # a quota of something else than requests
    policies = {float(quota): float(window) for quota, window in _POLICY.findall(text)}
    return policies.get(limit) or _number(text) or None


def _number(text: str | None) -> float | None:
    """Return a count as a header says it, or None for nonsense."""
    if text is None or not _NUMBER.fullmatch(text := text.strip()):
        return None
    value = float(text)
    return value if value <= _MOST else None


def _reset(text: str | None, now: datetime | None) -> tuple[float, float] | None:
    """Return the seconds until a limit is reset, and how many of them may not be for refilling its bucket.

    Reads Go's durations (`6m0s`, `12ms`), seconds, seconds or milliseconds since 1970, and RFC 3339. A duration is when
    the bucket is full, but for rounding; whatever else may be when a minute ends, however little of it was used.
    """
    if text is None or not (text := text.strip()):
        return None
    if _NUMBER.fullmatch(text):
        value = float(text)
        if value < 1e9:
            return value, _MINUTE
        return _until(value / 1000 if value >= 1e11 else value, now)
    if match := _DURATION.fullmatch(text):
        hours, minutes, last, unit = match.groups()
        seconds = float(hours or 0) * 3600 + float(minutes or 0) * 60
        if last:
            seconds += float(last) * _UNITS[unit]
        whole = unit in ("s", None) and "." not in text
        return (seconds, 1.0 if whole else 0.0) if seconds <= _MOST else None
    try:
        moment = datetime.fromisoformat(text)
        return None if moment.tzinfo is None else _until(moment.timestamp(), now)
    except (ValueError, OverflowError):
        return None


def _until(moment: float, now: datetime | None) -> tuple[float, float] | None:
    seconds = moment - (now or datetime.now(UTC)).timestamp()
    return (max(seconds, 0.0), _MINUTE) if seconds >= -_MINUTE else None  # clocks differ, but not by more
