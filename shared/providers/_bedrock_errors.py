"""What Bedrock's errors mean, whether an answer's header, its body or a frame of a stream names them."""

import re
from typing import Any

from shared.errors import ErrorKind, ProviderError
from shared.providers import HttpResponse
from shared.providers._dialect import kind_of, refusal, text

_CANONICAL = re.compile(r"\s*The Canonical String.*", re.DOTALL)
"""What a refused signature is explained by: the whole request again, the session's token among its headers."""
_KEY = re.compile(r"ABSK[A-Za-z0-9+/=]{8,}|bedrock-api-key-[A-Za-z0-9+/=]+|\b(AKIA|ASIA)[A-Z0-9]{12,}")
_BY_TYPE = {
    "accessdenied": ErrorKind.INVALID_KEY,
    "expiredtoken": ErrorKind.INVALID_KEY,
    "incompletesignature": ErrorKind.INVALID_KEY,
    "internalserver": ErrorKind.SERVER_ERROR,
    "invalidclienttokenid": ErrorKind.INVALID_KEY,
    "invalidsignature": ErrorKind.INVALID_KEY,
    "missingauthenticationtoken": ErrorKind.INVALID_KEY,
    "modelerror": ErrorKind.SERVER_ERROR,
    "modelnotready": ErrorKind.OVERLOADED,
    "modelstreamerror": ErrorKind.SERVER_ERROR,
    "modeltimeout": ErrorKind.TIMEOUT,
    "resourcenotfound": ErrorKind.MODEL_NOT_FOUND,
    "servicequotaexceeded": ErrorKind.QUOTA_EXHAUSTED,  # the account's own ceiling, which no pause lifts
    "serviceunavailable": ErrorKind.OVERLOADED,
    "signaturedoesnotmatch": ErrorKind.INVALID_KEY,
    "throttling": ErrorKind.RATE_LIMITED,
    "unrecognizedclient": ErrorKind.INVALID_KEY,
    "validation": ErrorKind.INVALID_REQUEST,
}
_BY_WORDS = {  # the models' own errors have no types
    "too long": ErrorKind.CONTEXT_TOO_LONG,
    "too many input tokens": ErrorKind.CONTEXT_TOO_LONG,
    "maximum context length": ErrorKind.CONTEXT_TOO_LONG,
    "exceed context limit": ErrorKind.CONTEXT_TOO_LONG,
    "content filtering policy": ErrorKind.CONTENT_FILTERED,
    "model identifier is invalid": ErrorKind.MODEL_NOT_FOUND,
    "on-demand throughput": ErrorKind.MODEL_NOT_FOUND,
    "access to the model": ErrorKind.MODEL_NOT_FOUND,  # the key is good for others
}
_WORDY = (ErrorKind.INVALID_REQUEST, ErrorKind.INVALID_KEY)
"""The kinds of which the words say more."""


def read_error(answer: dict[str, Any], response: HttpResponse, name: str = "") -> ProviderError:
    """Return the error that an answer or a frame is; `name` is the frame's type."""
    said = text(answer.get("message")) or text(answer.get("Message")) or text(answer.get("originalMessage"))
    kind = _kind(name or response.headers.get("x-amzn-errortype") or text(answer.get("__type")), response.status)
    if kind in _WORDY:
        lower = said.lower()
        kind = next((found for words, found in _BY_WORDS.items() if words in lower), kind)
    return refusal(response, kind, _KEY.sub("***", _CANONICAL.sub("", said)))


def _kind(name: str, status: int) -> ErrorKind:
    """Return the kind of a type such as `com.amazon.coral.service#ThrottlingException:http://…`."""
    plain = name.partition(":")[0].rpartition("#")[2].strip().lower().removesuffix("exception")
    return _BY_TYPE.get(plain) or kind_of(status)
