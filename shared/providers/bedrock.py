"""Amazon Bedrock's Converse API (https://docs.aws.amazon.com/bedrock/latest/APIReference), in OpenAI's shape.

Requests are translated in `_bedrock_request.py`; here they are signed, and answers read, whole and streamed. A key is
either a Bedrock API key or `ACCESS_KEY_ID:SECRET[:SESSION_TOKEN]`; the region is the one that the host names. What the
model thought is `reasoning_content`; `thinking_blocks` holds the same with the signatures that the vendor wants back in
a later turn. Answers name no model and have no id: theirs are the model that was asked and the id of the request.

Needs the extra `bedrock` for signing and for streams; nothing of it is imported before.
"""

import importlib
import re
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlsplit

import orjson

from shared.errors import ConfigError, Fault, ProviderError
from shared.json_values import mapping, sequence
from shared.providers import Call, Completion, Deployment, HttpRequest, HttpResponse, StreamReader, Usage
from shared.providers._bedrock_errors import read_error
from shared.providers._bedrock_request import translated
from shared.providers._dialect import (
    broken,
    chat_completion,
    finished,
    json_object,
    request_id_of,
    text,
    token_count,
    tool_call,
    usage_shape,
)
from shared.providers._stream import ChunkStream

DEFAULT_BASE_URL = "https://bedrock-runtime.us-east-1.amazonaws.com"
ROUTES = frozenset({"/v1/chat/completions"})

_DEFAULT_REGION = "us-east-1"
_REGION = re.compile(r"bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.")
_SIGNING_KEY = re.compile(r"([A-Z0-9]{16,128}):([^:\s]+)(?::([^:\s]+))?")
_FINISH = {
    "content_filtered": "content_filter",
    "guardrail_intervened": "content_filter",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
}
_MALFORMED = frozenset({"malformed_model_output", "malformed_tool_use"})


def faults(call: Call) -> list[Fault]:
    """Return what Bedrock cannot do of what is asked."""
    return translated(call.body, call.model)[1]


def request(call: Call, deployment: Deployment, key: str | None) -> HttpRequest:
    """Build a request to Converse or ConverseStream, signed where the key is an access key.

    Raises ConfigError where it is to be signed and botocore is not installed.
    """
    # A colon stays: clients that write it out in a path again would otherwise send another URL than was signed.
    path = f"/model/{quote(deployment.model, safe=':')}/converse{'-stream' if call.stream else ''}"
    body, _ = translated(call.body, deployment.model)
    built = HttpRequest(
        url=deployment.base_url + path,
        headers={"content-type": "application/json", "x-client-request-id": call.attempt_id},
        body=orjson.dumps(body),
    )
    if key and (parts := _SIGNING_KEY.fullmatch(key)):
        return _signed(built, *parts.groups())
    return replace(built, headers=built.headers | {"authorization": f"Bearer {key}"}) if key else built


def completion(response: HttpResponse, call: Call) -> Completion | ProviderError:
    """Read a 2xx answer: a message."""
    response = _identified(response)
    answer = json_object(response.body)
    if answer is None:
        return broken(response, "the answer is not a JSON object")
    content = mapping(mapping(answer.get("output")).get("message")).get("content")
    reason = text(answer.get("stopReason"))
    if not isinstance(content, list):
        if answer.keys() & {"__type", "message"} or "x-amzn-errortype" in response.headers:
            return read_error(answer, response)
        return broken(response, "the answer holds no output")
    if reason in _MALFORMED or not (content or reason):
        return broken(response, "the model's output is malformed" if reason else "the answer holds no output")
    try:
        message = _message(content)
    except orjson.JSONEncodeError:
        return broken(response, "the arguments of a call are nested too deeply")
    usage, identity = _usage(answer.get("usage")), _identity(response, call)
    choice = {"message": message, "finish_reason": _FINISH.get(reason, "stop")}
    shape = chat_completion(id=identity["id"], model=identity["model"], choices=[choice], usage=usage)
    return finished(shape | _tier(answer), call, usage, request_id_of(response))


def stream(head: HttpResponse, call: Call) -> StreamReader:
    """Read a streamed message. Raises ConfigError where botocore is not installed."""
    head = _identified(head)
    chunks = _Chunks(head, _identity(head, call))

    def whole(shape: dict[str, Any]) -> Completion:
        shape["choices"] = [{"logprobs": None, **choice} for choice in shape["choices"]]
        return finished({"usage": None, **shape}, call, chunks.usage, request_id_of(head))

    return _Frames(ChunkStream(head, chunks.of, whole))


def error(response: HttpResponse) -> ProviderError:
    """Read any other answer."""
    return read_error(json_object(response.body) or {}, _identified(response))


def _botocore(module: str) -> Any:
    try:
        return importlib.import_module(f"botocore.{module}")
    except ImportError as missing:
        raise ConfigError("providers of kind `bedrock` need botocore: pip install 'sluice[bedrock]'") from missing


def _signed(built: HttpRequest, access_key: str, secret: str, token: str | None) -> HttpRequest:
    """Return a request with a signature (SigV4) of its headers and body."""
    region = _REGION.search(urlsplit(built.url).hostname or "")
    credentials = _botocore("credentials").Credentials(access_key, secret, token)
    unsigned = _botocore("awsrequest").AWSRequest("POST", built.url, headers=built.headers, data=built.body)
    signer = _botocore("auth").SigV4Auth(credentials, "bedrock", region[1] if region else _DEFAULT_REGION)
    signer.add_auth(unsigned)
    return replace(built, headers={name.lower(): value for name, value in unsigned.headers.items()})


def _identified(response: HttpResponse) -> HttpResponse:
    """Return an answer with the vendor's request id where everybody else's is."""
    found = request_id_of(response, "x-amzn-requestid")
    return replace(response, headers=response.headers | {"x-request-id": found}) if found else response


def _identity(response: HttpResponse, call: Call) -> dict[str, str]:
    return {"id": request_id_of(response) or "", "model": call.model or text(call.body.get("model"), 256)}


def _tier(answer: dict[str, Any]) -> dict[str, str]:
    tier = text(mapping(answer.get("serviceTier")).get("type"), 64)
    return {"service_tier": tier} if tier else {}


def _usage(given: Any) -> Usage:
    """Read the vendor's `usage`, whose input does not count what the cache held or took."""
    fresh, output = token_count(given, "inputTokens"), token_count(given, "outputTokens")
    if fresh is None or output is None:
        return Usage(estimated=True)
    cached = token_count(given, "cacheReadInputTokens") or 0
    written = token_count(given, "cacheWriteInputTokens") or 0
    return Usage(input=fresh + cached + written, output=output, cached=cached, cache_write=written)


def _message(content: list[Any]) -> dict[str, Any]:
    """Return the message that blocks are; tools that the vendor has run itself leave no trace in it."""
    words, thoughts, signed, calls = [], [], [], []
    for block in map(mapping, content):
        thought, use = mapping(block.get("reasoningContent")), mapping(block.get("toolUse"))
        words.append(text(block.get("text")))
        cited = sequence(mapping(block.get("citationsContent")).get("content"))
        words += [text(mapping(piece).get("text")) for piece in cited]
        if spoken := mapping(thought.get("reasoningText")):
            thoughts.append(text(spoken.get("text")))
            signed += _thought(thoughts[-1], text(spoken.get("signature")))
        if hidden := text(thought.get("redactedContent")):
            signed.append({"type": "redacted_thinking", "data": hidden})
        if use and use.get("type") != "server_tool_use":
            calls.append(tool_call(text(use.get("toolUseId")), text(use.get("name")), mapping(use.get("input"))))
    message: dict[str, Any] = {"role": "assistant", "content": "".join(words) or None}
    optional = {"reasoning_content": "".join(thoughts), "thinking_blocks": signed, "tool_calls": calls}
    return message | {name: value for name, value in optional.items() if value}


def _thought(words: str, signature: str) -> list[dict[str, Any]]:
    """Return a thought to be sent back, none without a signature: only signed ones are wanted again."""
    return [{"type": "thinking", "thinking": words, "signature": signature}] if signature else []


class _Frames:
    """Reads AWS's event stream, frames with headers and a checksum, as the server-sent events they stand for."""

    done = False  # the connection's end says it

    def __init__(self, events: ChunkStream) -> None:
        self._events = events
        self._buffer = _botocore("eventstream").EventStreamBuffer()
        self._lost = False

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        if self._lost:
            return []
        self._buffer.add_data(data)
        chunks: list[dict[str, Any]] = []
        try:
            for frame in self._buffer:
                chunks += self._events.feed(_event(frame.headers, frame.payload))
        except Exception:  # botocore raises of every kind at what is no frame
            self._lost = True
            chunks += self._events.feed(b"data: no frame\n\n")
        return chunks

    def last(self) -> list[dict[str, Any]]:
        return self._events.last()

    def end(self) -> Completion | ProviderError:
        return self._events.end()


def _event(headers: dict[str, Any], payload: bytes) -> bytes:
    name = next((headers[word] for word in (":event-type", ":exception-type", ":error-code") if word in headers), "")
    if headers.get(":message-type") == "error":  # such a frame has its words in a header
        payload = orjson.dumps({"message": text(headers.get(":error-message"))})
    if headers.get(":message-type") in ("error", "exception"):
        name = f"error {name}"
    flat = payload.replace(b"\r", b" ").replace(b"\n", b" ")
    return b"event: %s\ndata: %s\n\n" % (" ".join(text(name).split()).encode(), flat)


class _Chunks:
    """Makes chunks of the events of one streamed message."""

    def __init__(self, head: HttpResponse, identity: dict[str, str]) -> None:
        self.usage = Usage(estimated=True)
        self._head = head
        self._shape = identity
        self._open: dict[int, dict[str, Any]] = {}
        self._calls = 0

    def of(self, name: str, event: dict[str, Any]) -> list[dict[str, Any]] | ProviderError:
        """Return the chunks that an event is."""
        index = event.get("contentBlockIndex")
        place = index if isinstance(index, int) else 0
        delta: dict[str, Any] = {}
        match name.split(" "):
            case ["error", *kind]:
                return read_error(event, self._head, "".join(kind))
            case ["messageStart"]:
                delta = {"role": "assistant"}
            case ["contentBlockStart"]:
                delta = self._begin(place, mapping(mapping(event.get("start")).get("toolUse")))
            case ["contentBlockDelta"]:
                opened = self._open.setdefault(place, {"thought": [], "signature": ""})
                delta = self._add(opened, mapping(event.get("delta")))
            case ["contentBlockStop"] if place in self._open:
                delta = self._end(self._open.pop(place))
            case ["messageStop"]:
                reason = text(event.get("stopReason"))
                if reason in _MALFORMED:
                    return broken(self._head, "the model's output is malformed")
                return [self._chunk({}, _FINISH.get(reason, "stop"))]
            case ["metadata"]:
                self._shape |= _tier(event)
                self.usage = _usage(event.get("usage"))
                return [] if self.usage.estimated else [self._chunk(usage=usage_shape(self.usage))]
        return [self._chunk(delta)] if delta else []

    def _begin(self, place: int, use: dict[str, Any]) -> dict[str, Any]:
        if not use or use.get("type") == "server_tool_use":
            return {}
        self._open[place] = {"call": self._calls, "silent": True}
        self._calls += 1
        call = tool_call(text(use.get("toolUseId")), text(use.get("name")), "")
        return {"tool_calls": [{"index": self._open[place]["call"], **call}]}

    def _add(self, opened: dict[str, Any], delta: dict[str, Any]) -> dict[str, Any]:
        if "call" in opened:
            piece = text(mapping(delta.get("toolUse")).get("input"))
            opened["silent"] &= not piece
            return _arguments(opened["call"], piece) if piece else {}
        thought = mapping(delta.get("reasoningContent"))
        opened["thought"].append(text(thought.get("text")))
        opened["signature"] += text(thought.get("signature"))
        said: dict[str, Any] = {"content": text(delta.get("text")), "reasoning_content": opened["thought"][-1]}
        if hidden := text(thought.get("redactedContent")):
            said["thinking_blocks"] = [{"type": "redacted_thinking", "data": hidden}]
        return {name: value for name, value in said.items() if value}

    def _end(self, opened: dict[str, Any]) -> dict[str, Any]:
        if "call" in opened:
            return _arguments(opened["call"], "{}") if opened["silent"] else {}
        signed = _thought("".join(opened["thought"]), opened["signature"])
        return {"thinking_blocks": signed} if signed else {}

    def _chunk(self, delta: dict[str, Any] | None = None, reason: str | None = None, **more: Any) -> dict[str, Any]:
        choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": reason}]
        return {**self._shape, "object": "chat.completion.chunk", "created": 0, "choices": choices, **more}


def _arguments(call: int, piece: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": call, "function": {"arguments": piece}}]}
