"""Errors of those who speak OpenAI's dialect: the envelopes they come in, and what their codes and words mean."""

import re
from dataclasses import replace
from typing import Any

import orjson

from shared.errors import ErrorKind, ProviderError
from shared.json_values import mapping
from shared.providers import HttpResponse, openai
from shared.providers._dialect import text

_KEY = re.compile(r"\b(sk|gsk|xai|nvapi|hf|pplx|csk|fw|ghp|github_pat)([-_])[A-Za-z0-9_\-*.]{6,}")
_STATUS = re.compile(r"[45]\d\d")
_BY_CODE = {
    # DashScope
    "arrearage": ErrorKind.QUOTA_EXHAUSTED,
    "data_inspection_failed": ErrorKind.CONTENT_FILTERED,
    # Azure and GitHub Models
    "deploymentnotfound": ErrorKind.MODEL_NOT_FOUND,
    "responsibleaipolicyviolation": ErrorKind.CONTENT_FILTERED,
    "tokens_limit_reached": ErrorKind.CONTEXT_TOO_LONG,
    "unknown_model": ErrorKind.MODEL_NOT_FOUND,
    # Groq: what the model wrote was no call, or no JSON; it may be next time
    "capacity_exceeded": ErrorKind.OVERLOADED,
    "json_validate_failed": ErrorKind.INVALID_RESPONSE,
    "model_decommissioned": ErrorKind.MODEL_NOT_FOUND,
    "tool_use_failed": ErrorKind.INVALID_RESPONSE,
    # Cerebras
    "queue_exceeded": ErrorKind.OVERLOADED,
    # Moonshot
    "engine_overloaded_error": ErrorKind.OVERLOADED,
    "exceeded_current_quota_error": ErrorKind.QUOTA_EXHAUSTED,
    # Mistral
    "1500": ErrorKind.MODEL_NOT_FOUND,
    "3505": ErrorKind.OVERLOADED,
    "invalid_model": ErrorKind.MODEL_NOT_FOUND,
    # Z.ai
    "1113": ErrorKind.QUOTA_EXHAUSTED,
    "1211": ErrorKind.MODEL_NOT_FOUND,
    "1261": ErrorKind.CONTEXT_TOO_LONG,
    "1301": ErrorKind.CONTENT_FILTERED,
    # llama.cpp while it loads
    "unavailable_error": ErrorKind.OVERLOADED,
}
_BY_STATED = {  # MiniMax puts a number beside a status of 200
    1001: ErrorKind.TIMEOUT,
    1002: ErrorKind.RATE_LIMITED,
    1004: ErrorKind.INVALID_KEY,
    1008: ErrorKind.QUOTA_EXHAUSTED,
    1026: ErrorKind.CONTENT_FILTERED,
    1027: ErrorKind.CONTENT_FILTERED,
    1039: ErrorKind.CONTEXT_TOO_LONG,
    2013: ErrorKind.INVALID_REQUEST,
    2049: ErrorKind.INVALID_KEY,
}
_REFUSED = frozenset({ErrorKind.INVALID_REQUEST, ErrorKind.INVALID_KEY, ErrorKind.INVALID_RESPONSE})
_BUSY = frozenset({ErrorKind.RATE_LIMITED, ErrorKind.SERVER_ERROR, ErrorKind.INVALID_RESPONSE})
# Many say by words alone what OpenAI has codes for; which kinds they may be mistaken for stands beside them.
_BY_WORDS = (
    (
        re.compile(
            r"context[ _](?:length|window|size)|maximum context|(?:prompt|input) is too long|too many (?:input )?tokens"
            r"|reduce the length|(?:larger|longer|too large).{0,40} context|exceeds? .{0,40}(?:context|token limit)",
            re.IGNORECASE,
        ),
        _REFUSED,
        ErrorKind.CONTEXT_TOO_LONG,
    ),
    (
        re.compile(
            r"insufficient (?:\w+ )?(?:balance|credits?|funds|quota)|out of credits|spending limit|available credits"
            r"|exceeded your (?:current quota|monthly)|account balance",
            re.IGNORECASE,
        ),
        _REFUSED | _BUSY,
        ErrorKind.QUOTA_EXHAUSTED,
    ),
    (
        re.compile(r"content management policy|inappropriate content|\bflagged\b|content[ _]filter", re.IGNORECASE),
        _REFUSED,
        ErrorKind.CONTENT_FILTERED,
    ),
    (
        re.compile(
            r"(?:invalid|unknown) model|\bmodel\b.{0,120}(?:does not exist|not found|not available|decommissioned)",
            re.IGNORECASE,
        ),
        _REFUSED - {ErrorKind.INVALID_KEY},
        ErrorKind.MODEL_NOT_FOUND,
    ),
    (re.compile(r"\boverloaded\b|capacity exceeded|at capacity", re.IGNORECASE), _BUSY, ErrorKind.OVERLOADED),
)


def error_in(answer: dict[str, Any], response: HttpResponse) -> ProviderError:
    """Read the error that an answer holds, whatever its envelope; an empty one is what the status says."""
    said = _said(answer)
    code, type_ = _scalar(said.get("code")), _scalar(said.get("type"))
    if isinstance(code, str) and _STATUS.fullmatch(code):
        code = int(code)
    # Mistral's word for it, where the status is that of a good answer.
    envelope = {"message": _words(said), "code": code, "type": str(type_).removeprefix("internal_")}
    found = openai.error(HttpResponse(response.status, response.headers, orjson.dumps({"error": envelope})))
    found = replace(found, message=_KEY.sub(r"\1\2***", found.message))
    return replace(found, kind=_kind(found, answer, said))


def _said(answer: dict[str, Any]) -> dict[str, Any]:
    """Return what of an answer says what is wrong: its `error`, MiniMax's or Cloudflare's like, or all of it."""
    inner: Any = answer.get("error") or answer.get("base_resp")
    if not inner and isinstance(answer.get("errors"), list) and answer["errors"]:
        inner = answer["errors"][0]
    if isinstance(inner, dict):
        return inner
    return {**answer, "message": inner} if inner else answer


def _words(value: Any, depth: int = 4) -> str:
    """Return the words of an error: a text, or what lies under the names that vendors and FastAPI give to one."""
    match value:
        case str():
            return value
        case list() if depth:
            return "; ".join(filter(None, (_words(one, depth - 1) for one in value[:5])))
        case dict() if depth:
            names = ("message", "msg", "detail", "error", "status_msg", "title")
            found = next((words for name in names if (words := _words(value.get(name), depth - 1))), "")
            where = value.get("loc")
            if found and isinstance(where, list):
                return ".".join(str(one) for one in where if isinstance(one, str | int)) + f": {found}"
            return found
    return ""


def _kind(found: ProviderError, answer: dict[str, Any], said: dict[str, Any]) -> ErrorKind:
    for word in (said.get("code"), mapping(said.get("innererror")).get("code"), said.get("type"), answer.get("code")):
        if (known := _BY_CODE.get(str(_scalar(word)).lower())) is not None:
            return known
    stated = said.get("status_code")
    if isinstance(stated, int) and stated in _BY_STATED:
        return _BY_STATED[stated]
    if mapping(said.get("metadata")).get("reasons"):  # OpenRouter's moderation, which is a 403
        return ErrorKind.CONTENT_FILTERED
    for pattern, mistaken, kind in _BY_WORDS:
        if found.kind in mistaken and pattern.search(found.message):
            return kind
    return found.kind


def _scalar(value: Any) -> str | int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) < 2**53 else None
    return text(value, 200) or None
