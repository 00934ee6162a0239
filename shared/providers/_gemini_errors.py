"""What Gemini's errors mean, whether an answer or an event of a stream holds them.

They are `google.rpc.Status` (https://cloud.google.com/apis/design/errors), whose details say more than its status. A
spent quota of a day is a rate limit like any other: it comes back by itself, and jobs are made to wait. A quota of zero
never does, nor does money that has run out.
"""

import re
from dataclasses import replace
from typing import Any

import orjson

from shared.errors import ErrorKind, ProviderError
from shared.json_values import mapping, sequence
from shared.providers import HttpResponse
from shared.providers._dialect import kind_of, refusal, text
from shared.retry import LONGEST_RETRY_AFTER

DAY_SPENT_SECONDS = 600.0
"""How long to leave a quota of a day alone at least; the delay that the vendor names for it is that of a minute's."""

_KEY = re.compile(r"\b(AIza|AQ\.)[A-Za-z0-9_.\-]{6,}")
_BY_REASON = {
    "API_KEY_INVALID": ErrorKind.INVALID_KEY,
    "BILLING_DISABLED": ErrorKind.QUOTA_EXHAUSTED,
    "MODEL_CAPACITY_EXHAUSTED": ErrorKind.OVERLOADED,
}
_BY_WORDS = {  # the vendor gives these no reason of their own
    "exceeds the maximum number of tokens": ErrorKind.CONTEXT_TOO_LONG,
    "API key not valid": ErrorKind.INVALID_KEY,
    "API key expired": ErrorKind.INVALID_KEY,
    "User location is not supported": ErrorKind.INVALID_KEY,  # which is where Sluice runs, not its caller
    "credits are depleted": ErrorKind.QUOTA_EXHAUSTED,
    "spending cap": ErrorKind.QUOTA_EXHAUSTED,
}
_NO_QUOTA = re.compile(r"\blimit: 0\b(?![.,]\d)")
_BY_STATUS = {
    "ABORTED": ErrorKind.SERVER_ERROR,
    "CANCELLED": ErrorKind.SERVER_ERROR,
    "DATA_LOSS": ErrorKind.SERVER_ERROR,
    "DEADLINE_EXCEEDED": ErrorKind.TIMEOUT,
    "FAILED_PRECONDITION": ErrorKind.INVALID_REQUEST,
    "INTERNAL": ErrorKind.SERVER_ERROR,
    "INVALID_ARGUMENT": ErrorKind.INVALID_REQUEST,
    "NOT_FOUND": ErrorKind.MODEL_NOT_FOUND,
    "OUT_OF_RANGE": ErrorKind.INVALID_REQUEST,
    "PERMISSION_DENIED": ErrorKind.INVALID_KEY,
    "RESOURCE_EXHAUSTED": ErrorKind.RATE_LIMITED,
    "UNAUTHENTICATED": ErrorKind.INVALID_KEY,
    "UNAVAILABLE": ErrorKind.OVERLOADED,
    "UNIMPLEMENTED": ErrorKind.INVALID_REQUEST,
    "UNKNOWN": ErrorKind.SERVER_ERROR,
}


def only_object(body: bytes) -> dict[str, Any]:
    """Return the object that a body is, or holds alone in a list as errors of streaming calls do, else an empty one."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return mapping(value[0] if isinstance(value, list) and len(value) == 1 else value)


def read_error(answer: dict[str, Any], response: HttpResponse) -> ProviderError:
    """Return the error that an envelope holds."""
    envelope = answer.get("error")
    said: dict[str, Any] = envelope if isinstance(envelope, dict) else {"message": envelope}
    details = [mapping(detail) for detail in sequence(said.get("details"))]
    kind = _kind(response.status, said, details)
    found = refusal(response, kind, _KEY.sub(r"\1***", text(said.get("message"))))
    seconds = _delay(details)
    if kind is ErrorKind.RATE_LIMITED and _day_is_spent(details):
        seconds = max(seconds or 0.0, DAY_SPENT_SECONDS)
    return found if seconds is None else replace(found, retry_after=seconds)


def _kind(status: int, said: dict[str, Any], details: list[dict[str, Any]]) -> ErrorKind:
    for detail in details:
        reason = text(detail.get("reason"))
        if reason in _BY_REASON:
            return _BY_REASON[reason]
    message = text(said.get("message"))
    for words, kind in _BY_WORDS.items():
        if words in message:
            return kind
    named = _BY_STATUS.get(text(said.get("status")))
    if named is ErrorKind.RATE_LIMITED and _NO_QUOTA.search(message):
        return ErrorKind.QUOTA_EXHAUSTED
    code = said.get("code")
    if status < 400 and isinstance(code, int) and 400 <= code <= 599:
        status = code  # what had begun its 200 puts the status it means into the envelope
    return named or kind_of(status)


def _delay(details: list[dict[str, Any]]) -> float | None:
    """Return the seconds of a `RetryInfo`, which come as `"38s"` or `"0.5s"`."""
    for detail in details:
        given = text(detail.get("retryDelay"), 64)
        try:
            seconds = float(given.removesuffix("s"))
        except ValueError:
            continue
        if seconds >= 0:  # which NaN is not
            return min(seconds, LONGEST_RETRY_AFTER)
    return None


def _day_is_spent(details: list[dict[str, Any]]) -> bool:
    violations = [mapping(one) for detail in details for one in sequence(detail.get("violations"))]
    return any("PerDay" in text(violation.get("quotaId")) for violation in violations)
