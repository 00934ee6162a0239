"""What Anthropic's errors mean, whether an answer or an event of a stream holds them."""

import re
from typing import Any

from shared.errors import ErrorKind, ProviderError
from shared.json_values import mapping
from shared.providers import HttpResponse
from shared.providers._dialect import kind_of, refusal, text

_KEY = re.compile(r"sk-ant-[A-Za-z0-9_\-*]{4,}")
_BY_CODE = {
    "contract_spend_limit_reached": ErrorKind.QUOTA_EXHAUSTED,
    "enforced_spend_limit_reached": ErrorKind.QUOTA_EXHAUSTED,
    "linked_organization_billing_unavailable": ErrorKind.QUOTA_EXHAUSTED,
    "linked_organization_spend_limit_reached": ErrorKind.QUOTA_EXHAUSTED,
    "organization_on_hold": ErrorKind.INVALID_KEY,
}
_BY_WORDS = {  # the vendor gives these no type or code of their own
    "credit balance is too low": ErrorKind.QUOTA_EXHAUSTED,
    "API usage limits": ErrorKind.QUOTA_EXHAUSTED,
    "prompt is too long": ErrorKind.CONTEXT_TOO_LONG,
    "exceed context limit": ErrorKind.CONTEXT_TOO_LONG,
    "content filtering policy": ErrorKind.CONTENT_FILTERED,
}
_BY_TYPE = {
    "api_error": ErrorKind.SERVER_ERROR,
    "authentication_error": ErrorKind.INVALID_KEY,
    "billing_error": ErrorKind.QUOTA_EXHAUSTED,
    "invalid_request_error": ErrorKind.INVALID_REQUEST,
    "not_found_error": ErrorKind.MODEL_NOT_FOUND,
    "overloaded_error": ErrorKind.OVERLOADED,
    "permission_error": ErrorKind.INVALID_KEY,
    "rate_limit_error": ErrorKind.RATE_LIMITED,
    "request_too_large": ErrorKind.INVALID_REQUEST,
    "timeout_error": ErrorKind.TIMEOUT,
}


def read_error(answer: dict[str, Any], response: HttpResponse) -> ProviderError:
    """Return the error that an envelope holds; its code says more than its words, these more than its type."""
    envelope = answer.get("error")
    said: dict[str, Any] = envelope if isinstance(envelope, dict) else {"message": envelope}
    message = _KEY.sub("sk-ant-***", text(said.get("message")))
    return refusal(response, _kind(response.status, said), message, request_id=text(answer.get("request_id"), 256))


def _kind(status: int, said: dict[str, Any]) -> ErrorKind:
    code = text(mapping(said.get("details")).get("error_code"))
    if code in _BY_CODE:
        return _BY_CODE[code]
    message = text(said.get("message"))
    for words, kind in _BY_WORDS.items():
        if words in message:
            return kind
    return _BY_TYPE.get(text(said.get("type"))) or kind_of(status)
