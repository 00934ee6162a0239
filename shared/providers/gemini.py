"""Google's Gemini API (https://ai.google.dev/api/generate-content) and its embeddings, in OpenAI's shape.

Requests are translated in `_gemini_request.py`, errors read in `_gemini_errors.py`. The events of a stream are whole
answers that go on, so that an answer which is not streamed is read as a stream of one. Signatures of thoughts, which
the vendor wants back in a later turn, are `extra_content.google.thought_signature` of a call or a message, as they are
at Google's own endpoint of OpenAI's dialect. What the vendor's own tools did (searches, code it ran) leaves no trace.
"""

import hashlib
import re
from typing import Any
from urllib.parse import quote

import orjson

from shared.errors import ErrorKind, Fault, ProviderError
from shared.json_values import mapping, sequence
from shared.providers import Call, Completion, Deployment, HttpRequest, HttpResponse, StreamReader, Usage
from shared.providers._dialect import (
    broken,
    embeddings_shape,
    finished,
    refusal,
    request_id_of,
    text,
    token_count,
    tool_call,
    usage_shape,
)
from shared.providers._gemini_errors import only_object, read_error
from shared.providers._gemini_request import chat, embeddings, inputs
from shared.providers._gemini_request import listing as listing
from shared.providers._stream import Assembly, ChunkStream

DEFAULT_BASE_URL = "https://generativelanguage.googleapis.com/v1beta"
ROUTES = frozenset({"/v1/chat/completions", "/v1/embeddings"})

_EMBEDDINGS = "/v1/embeddings"
_FINISH = {
    "BLOCKLIST": "content_filter",
    "CONTINUATION": "length",
    "ESCALATION": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "LANGUAGE": "content_filter",
    "MAX_TOKENS": "length",
    "MODEL_ARMOR": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "RECITATION": "content_filter",
    "SAFETY": "content_filter",
    "SPII": "content_filter",
}
_FAILED = {  # the model went astray, which another try may mend, or it was not let
    "IMAGE_OTHER": ErrorKind.INVALID_RESPONSE,
    "MALFORMED_FUNCTION_CALL": ErrorKind.INVALID_RESPONSE,
    "MALFORMED_RESPONSE": ErrorKind.INVALID_RESPONSE,
    "MISSING_THOUGHT_SIGNATURE": ErrorKind.INVALID_REQUEST,
    "NO_IMAGE": ErrorKind.INVALID_RESPONSE,
    "OTHER": ErrorKind.INVALID_RESPONSE,
    "PUP_LIMITED_DISABLED": ErrorKind.INVALID_KEY,
    "TOO_MANY_TOOL_CALLS": ErrorKind.INVALID_RESPONSE,
    "UNEXPECTED_TOOL_CALL": ErrorKind.INVALID_RESPONSE,
}
_MOST_CHOICES = 128
_LARGEST_FLOAT32 = 3.4e38
_BARE = re.compile(rb"[\r\n][\[{]")


def faults(call: Call) -> list[Fault]:
    """Return what Gemini cannot do of what is asked; that does not depend on the model."""
    return (embeddings if call.url == _EMBEDDINGS else chat)(call.body, "")[1]


def request(call: Call, deployment: Deployment, key: str | None) -> HttpRequest:
    """Build a request; a model without a collection (`tunedModels/…`) is one of `models/`."""
    headers = {"content-type": "application/json", "x-client-request-id": call.attempt_id}
    if key:
        headers["x-goog-api-key"] = key
    model = deployment.model if "/" in deployment.model else f"models/{deployment.model}"
    if call.url == _EMBEDDINGS:
        method, (body, _) = "batchEmbedContents", embeddings(call.body, model)
    else:
        method = "streamGenerateContent?alt=sse" if call.stream else "generateContent"
        body, _ = chat(call.body, model)
    url = f"{deployment.base_url}/{quote(model, safe='/')}:{method}"
    return HttpRequest(url=url, headers=headers, body=orjson.dumps(body))


def completion(response: HttpResponse, call: Call) -> Completion | ProviderError:
    """Read a 2xx answer: candidates, or embeddings."""
    answer = only_object(response.body)
    if not answer:
        return broken(response, "the answer is not a JSON object")
    if answer.get("error"):
        return read_error(answer, response)
    if call.url == _EMBEDDINGS:
        return _embedded(answer, response, call)
    chunks, whole = _Chunks(response, call), Assembly()
    found = chunks.of("", answer)
    if isinstance(found, ProviderError):
        return found
    for chunk in found:
        whole.add(chunk)
    if not whole.finished:
        return broken(response, "the answer holds no finished output")
    return chunks.whole(whole.completion())


def stream(head: HttpResponse, call: Call) -> StreamReader:
    """Read streamed candidates."""
    return _Stream(head, call)


def error(response: HttpResponse) -> ProviderError:
    """Read any other answer."""
    return read_error(only_object(response.body), response)


def _embedded(answer: dict[str, Any], response: HttpResponse, call: Call) -> Completion | ProviderError:
    vectors = [_vector(mapping(one).get("values")) for one in sequence(answer.get("embeddings"))]
    if not vectors or len(vectors) != len(inputs(call.body)) or not all(vectors):
        return broken(response, "the answer does not hold a vector for each input")
    usage = _usage(mapping(answer.get("usageMetadata")))
    shape = embeddings_shape(vectors, call, model=text(call.body.get("model"), 256), usage=usage)
    return finished(shape, call, usage, request_id_of(response))


def _vector(values: Any) -> list[float]:
    """Return a vector, an empty one for what is none."""
    fits = all(isinstance(value, int | float) and abs(value) <= _LARGEST_FLOAT32 for value in sequence(values))
    return sequence(values) if fits else []


def _usage(given: dict[str, Any]) -> Usage:
    """Read the vendor's `usageMetadata`, whose prompt includes what was cached, and whose candidates no thoughts."""
    prompt = token_count(given, "promptTokenCount")
    if prompt is None:
        return Usage(estimated=True)
    thoughts = token_count(given, "thoughtsTokenCount") or 0
    return Usage(
        input=prompt + (token_count(given, "toolUsePromptTokenCount") or 0),
        output=(token_count(given, "candidatesTokenCount") or 0) + thoughts,
        cached=min(token_count(given, "cachedContentTokenCount") or 0, prompt),
        reasoning=thoughts,
    )


class _Stream:
    """Reads a stream whose errors need not be events: Google may break it off with bare JSON instead."""

    def __init__(self, head: HttpResponse, call: Call) -> None:
        chunks = _Chunks(head, call)
        self._events = ChunkStream(head, chunks.of, chunks.whole)
        self._bare: list[bytes] = []
        self._before, self.done = b"\n", False  # its end is the connection's

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        if self._bare:
            self._bare.append(data)
            return []
        found = _BARE.search(self._before + data)
        if found is None:
            self._before = data[-1:] or self._before
            return self._events.feed(data)
        self._bare.append(data[found.start() :])
        return self._events.feed(data[: found.start()])

    def last(self) -> list[dict[str, Any]]:
        bare = b"".join(self._bare).strip()
        self._bare = []
        if not bare:
            return self._events.last()
        if bare.startswith(b"["):
            bare = bare[1:].rstrip(b"]")
        return self._events.feed(b"\n\ndata: " + bare.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n\n")

    def end(self) -> Completion | ProviderError:
        self.last()
        return self._events.end()


class _Chunks:
    """Makes chunks of the events of one stream, and the whole of them in the end."""

    def __init__(self, head: HttpResponse, call: Call) -> None:
        self._head, self._call = head, call
        self._shape = {"id": "", "model": text(call.body.get("model"), 256)}
        self._shape |= _tier(head.headers.get("x-gemini-service-tier"))
        self._counted: dict[str, Any] = {}
        self._calls: dict[int, int] = {}
        self._open: dict[int, bool] = {}

    def of(self, _: str, event: dict[str, Any]) -> list[dict[str, Any]] | ProviderError:
        """Return the chunks that an event is."""
        if event.get("error"):
            return read_error(event, self._head)
        candidates = sequence(event.get("candidates"))
        blocked = text(mapping(event.get("promptFeedback")).get("blockReason"), 64)
        if blocked and not candidates:
            return refusal(self._head, ErrorKind.CONTENT_FILTERED, f"the prompt was blocked: {blocked}")
        counted = mapping(event.get("usageMetadata"))
        self._counted |= {name: value for name, value in counted.items() if value is not None}
        identity = {"id": text(event.get("responseId"), 256), "model": text(event.get("modelVersion"), 256)}
        self._shape |= {name: value for name, value in identity.items() if value} | _tier(counted.get("serviceTier"))
        choices = []
        for place, given in enumerate(candidates):
            candidate = mapping(given)
            reason = text(candidate.get("finishReason"), 64)
            if reason in _FAILED:
                return refusal(self._head, _FAILED[reason], f"the model did not answer: {reason}")
            index = candidate.get("index")
            index = index if type(index) is int and 0 <= index < _MOST_CHOICES else place
            try:
                choices.append(self._choice(index, candidate, reason))
            except orjson.JSONEncodeError:
                return broken(self._head, "the arguments of a call are nested too deeply")
        chunks = [self._chunk(choices)] if choices else []
        if (choices or counted) and self._open and not any(self._open.values()) and not self.usage.estimated:
            chunks.append(self._chunk([], usage=usage_shape(self.usage)))
        return chunks

    @property
    def usage(self) -> Usage:
        """What the call used, as far as the vendor has said."""
        return _usage(self._counted)

    def whole(self, shape: dict[str, Any]) -> Completion:
        """Return the whole answer from what was put together of the chunks."""
        shape["choices"] = [{"logprobs": None, **choice} for choice in shape["choices"]]
        request_id = request_id_of(self._head) or text(shape["id"], 256) or None
        return finished({"usage": None, **shape}, self._call, self.usage, request_id)

    def _choice(self, index: int, candidate: dict[str, Any], reason: str) -> dict[str, Any]:
        delta: dict[str, Any] = {} if index in self._open else {"role": "assistant"}
        delta |= self._delta(index, sequence(mapping(candidate.get("content")).get("parts")))
        told = mapping(candidate.get("logprobsResult"))
        logprobs = {"logprobs": _logprobs(told)} if told.get("chosenCandidates") else {}
        self._open[index] = not reason
        finish = "tool_calls" if reason == "STOP" and index in self._calls else _FINISH.get(reason, "stop")
        return {"index": index, "delta": delta, **logprobs, "finish_reason": finish if reason else None}

    def _delta(self, index: int, parts: list[Any]) -> dict[str, Any]:
        """Return what parts say; the signature of a thought is the call's it stands at, else the message's."""
        words: list[str] = []
        thoughts: list[str] = []
        images, calls, signature = [], [], ""
        for part in map(mapping, parts):
            media = mapping(part.get("inlineData"))
            signed = text(part.get("thoughtSignature"))
            if "functionCall" in part:
                calls.append(self._called(index, mapping(part["functionCall"])) | _extra(signed))
                continue
            (thoughts if part.get("thought") is True else words).append(text(part.get("text")))
            signature = signed or signature
            if text(media.get("mimeType")).startswith("image/"):
                url = f"data:{text(media['mimeType'])};base64,{text(media.get('data'))}"
                images.append({"type": "image_url", "image_url": {"url": url}})
        said = {
            "content": "".join(words),
            "reasoning_content": "".join(thoughts),
            "images": images,
            "tool_calls": calls,
        }
        return {name: value for name, value in said.items() if value} | _extra(signature)

    def _called(self, index: int, given: dict[str, Any]) -> dict[str, Any]:
        place = self._calls[index] = self._calls.get(index, -1) + 1
        called = text(given.get("id"), 256)
        if not called:  # older models give none; OpenAI takes back no more than 40 letters
            named = f"{self._call.attempt_id}/{index}/{place}"
            called = f"call_{hashlib.sha256(named.encode(errors='replace')).hexdigest()[:24]}"
        return {"index": place, **tool_call(called, text(given.get("name")), mapping(given.get("args")))}

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {**self._shape, "object": "chat.completion.chunk", "created": 0, "choices": choices, **more}


def _tier(given: Any) -> dict[str, str]:
    tier = text(given, 64).lower()
    return {"service_tier": "default" if tier == "standard" else tier} if tier not in ("", "unspecified") else {}


def _extra(signature: str) -> dict[str, Any]:
    return {"extra_content": {"google": {"thought_signature": signature}}} if signature else {}


def _logprobs(told: dict[str, Any]) -> dict[str, Any]:
    tops, content = sequence(told.get("topCandidates")), []
    for index, one in enumerate(sequence(told["chosenCandidates"])):
        top = sequence(mapping(tops[index]).get("candidates")) if index < len(tops) else []
        content.append(_logprob(mapping(one)) | {"top_logprobs": [_logprob(mapping(other)) for other in top]})
    return {"content": content, "refusal": None}


def _logprob(given: dict[str, Any]) -> dict[str, Any]:
    token, value = text(given.get("token")), given.get("logProbability")
    # What is zero is left out of the vendor's JSON.
    return {"token": token, "logprob": value if isinstance(value, int | float) else 0.0, "bytes": list(token.encode())}
