"""OpenAI, and what every server shares that speaks its dialect at another `base_url`."""

import re
from typing import Any

import orjson

from shared.errors import ErrorKind, Fault, ProviderError
from shared.json_values import mapping
from shared.providers import Call, Completion, Deployment, HttpRequest, HttpResponse, StreamReader
from shared.providers._dialect import broken, finished, json_object, kind_of, refusal, request_id_of, text, usage_of
from shared.providers._stream import ChunkStream, SseDecoder

DEFAULT_BASE_URL = "https://api.openai.com/v1"
ROUTES = frozenset({"/v1/chat/completions", "/v1/embeddings", "/v1/responses"})

_HELD = {"/v1/chat/completions": "choices", "/v1/embeddings": "data", "/v1/responses": "output"}
_KEY = re.compile(r"sk-[A-Za-z0-9_\-*]{4,}")
_BY_CODE = {
    "insufficient_quota": ErrorKind.QUOTA_EXHAUSTED,
    "billing_hard_limit_reached": ErrorKind.QUOTA_EXHAUSTED,
    "context_length_exceeded": ErrorKind.CONTEXT_TOO_LONG,
    "exceed_context_size_error": ErrorKind.CONTEXT_TOO_LONG,
    "content_filter": ErrorKind.CONTENT_FILTERED,
    "content_policy_violation": ErrorKind.CONTENT_FILTERED,
    "model_not_found": ErrorKind.MODEL_NOT_FOUND,
    "invalid_api_key": ErrorKind.INVALID_KEY,
    "rate_limit_exceeded": ErrorKind.RATE_LIMITED,
}


def faults(_: Call) -> list[Fault]:
    """Find nothing: what the vendor cannot do it refuses itself, in its own words."""
    return []


def request(call: Call, deployment: Deployment, key: str | None) -> HttpRequest:
    """Build the request: the caller's body with the upstream's name of the model, all else untouched."""
    headers = {"content-type": "application/json", "x-client-request-id": call.attempt_id}
    if key:
        headers["authorization"] = f"Bearer {key}"
    changed: dict[str, Any] = {"model": deployment.model}
    if call.stream and call.url == "/v1/chat/completions":
        # Without it the vendor would not say what a streamed answer used.
        changed["stream_options"] = mapping(call.body.get("stream_options")) | {"include_usage": True}
    return HttpRequest(
        url=deployment.base_url + call.url.removeprefix("/v1"),
        headers=headers,
        body=orjson.dumps(call.body | changed),
    )


def listing(base_url: str, key: str | None) -> HttpRequest:
    """Build the request for the list of models."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return HttpRequest(url=f"{base_url}/models", headers=headers, body=b"", method="GET")


def completion(response: HttpResponse, call: Call) -> Completion | ProviderError:
    """Read a 2xx answer: a chat completion, embeddings, or a response."""
    answer = json_object(response.body)
    if answer is None:
        return broken(response, "the answer is not a JSON object")
    return _whole(answer, response, call)


def stream(head: HttpResponse, call: Call) -> StreamReader:
    """Read a streamed chat completion, or a streamed response."""
    if call.url == "/v1/responses":
        return _ResponseStream(head, call)
    return ChunkStream(
        head,
        lambda _, chunk: _error(chunk, head) if chunk.get("error") else [chunk],
        lambda whole: _whole(whole, head, call),
    )


def error(response: HttpResponse) -> ProviderError:
    """Read any other answer; a code in the envelope says more than the status."""
    return _error(json_object(response.body) or {}, response)


def _whole(answer: dict[str, Any], response: HttpResponse, call: Call) -> Completion | ProviderError:
    if answer.get("error"):
        return _error(answer, response)
    held = answer.get(_HELD[call.url])
    if not isinstance(held, list) or not (held or answer.get("status") == "incomplete"):
        return broken(response, "the answer holds no output")
    return finished(answer, call, usage_of(answer.get("usage")), request_id_of(response), body=response.body or None)


def _error(answer: dict[str, Any], response: HttpResponse) -> ProviderError:
    envelope = answer.get("error")
    said: dict[str, Any] = envelope if isinstance(envelope, dict) else {"message": envelope}
    message = _KEY.sub("sk-***", text(said.get("message")))
    return refusal(response, _kind(response.status, said), message)


def _kind(status: int, said: dict[str, Any]) -> ErrorKind:
    words = said.get("code"), said.get("type")
    for word in words:
        if isinstance(word, str) and word in _BY_CODE:
            kind = _BY_CODE[word]
            # More tokens than a whole minute's allowance are refused like a passing rate limit, but always will be.
            if kind is ErrorKind.RATE_LIMITED and text(said.get("message")).startswith("Request too large"):
                return ErrorKind.CONTEXT_TOO_LONG
            return kind
    if status < 400:  # what had begun its 200 puts the status it means into the envelope
        status = next((word for word in words if isinstance(word, int) and 400 <= word <= 599), status)
        status = 500 if "server_error" in words else status
    return kind_of(status)


class _ResponseStream:
    """Reads a streamed response: its events pass as they are, and the last of them holds the whole."""

    def __init__(self, head: HttpResponse, call: Call) -> None:
        self._head, self._call = head, call
        self._decoder = SseDecoder()
        self._end: Completion | ProviderError | None = None

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        events = []
        for event in self._decoder.feed(data):
            value = None if self._end is not None else json_object(event.data.encode())
            if value is None:
                continue
            match value.get("type"):
                case "error":
                    self._end = _error({"error": value.get("error") or value}, self._head)
                case "response.failed":
                    self._end = _error(mapping(value.get("response")), self._head)
                case "response.completed" | "response.incomplete":
                    self._end = _whole(mapping(value.get("response")), self._head, self._call)
                    events.append(value)
                case _:
                    events.append(value)
        return events

    @property
    def done(self) -> bool:
        return self._end is not None

    def last(self) -> list[dict[str, Any]]:
        return self.feed(b"\n\n")

    def end(self) -> Completion | ProviderError:
        self.last()
        return self._end or broken(self._head, "the stream broke off")
