"""What every adapter keeps: its golden files, and no exception whatever a vendor answers."""

import inspect
import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import HANDLING, ErrorKind, Fault, ProviderError
from shared.providers import Call, Completion, HttpResponse, Usage, adapter, kinds
from shared.providers._vendors import VENDORS
from tests.providers import golden

ROUTES = frozenset({"/v1/chat/completions", "/v1/embeddings", "/v1/responses", "/v1/messages"})
PARAMETERS = {
    "faults": ["call"],
    "request": ["call", "deployment", "key"],
    "completion": ["response", "call"],
    "stream": ["head", "call"],
    "error": ["response"],
}
USAGE = ("input", "output", "cached", "cache_write", "reasoning")
# What vendors' answers are made of, so that nonsense gets past the first look.
WORDS = [
    "error", "errors", "type", "code", "message", "detail", "choices", "candidates", "content", "parts", "text",
    "delta", "index", "finish_reason", "usage", "prompt_tokens", "input_tokens", "usageMetadata", "data", "embedding",
    "embeddings", "output", "tool_calls", "function", "arguments", "id", "model", "reasoning", "x_groq", "__type",
]  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=8)
JSON = st.recursive(
    SCALARS | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)
OBJECT = st.dictionaries(st.sampled_from(WORDS), JSON, min_size=1, max_size=5)
DEEP = (
    b'{"error": %s}',
    b'{"error": {"message": %s}}',
    b'{"choices": [{"index": 0, "message": {"content": %s}, "delta": {"content": %s}, "finish_reason": "stop"}]}',
)
few = settings(max_examples=25, deadline=None)


def usage_of(case: dict[str, Any]) -> Usage:
    """Return the usage a case expects; one that is null is to be estimated."""
    counted = case.get("usage", {})
    return Usage(estimated=True) if counted is None else Usage(**{name: counted.get(name, 0) for name in USAGE})


def said(choice: dict[str, Any]) -> tuple[Any, ...]:
    """Return what a whole choice says, of what its chunks say piece by piece."""
    message = choice["message"]
    calls = [(call["id"], call["function"]["name"], call["function"]["arguments"])
             for call in message.get("tool_calls") or ()]  # fmt: skip
    text, thought = message.get("content"), message.get("reasoning_content")
    return text if isinstance(text, str) else "", thought or "", calls, choice["finish_reason"]


def said_in_pieces(chunks: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return the same of each choice of a stream, in the order of their indices."""
    found: dict[int, dict[str, Any]] = {}
    for choice in [choice for chunk in chunks for choice in chunk["choices"]]:
        held = found.setdefault(choice["index"], {"text": "", "thought": "", "calls": {}, "reason": None})
        delta = choice["delta"]
        text = delta.get("content")
        held["text"] += text if isinstance(text, str) else ""
        held["thought"] += delta.get("reasoning_content") or ""
        held["reason"] = choice.get("finish_reason") or held["reason"]
        for part in delta.get("tool_calls") or ():
            call = held["calls"].setdefault(part["index"], ["", "", ""])
            function = part.get("function", {})
            call[0], call[1] = part.get("id") or call[0], function.get("name") or call[1]
            call[2] += function.get("arguments") or ""
    ordered = (found[index] for index in sorted(found))
    return [
        (held["text"], held["thought"], [tuple(call) for _, call in sorted(held["calls"].items())], held["reason"])
        for held in ordered
    ]


def outcome(kind: str, case: dict[str, Any], pieces: list[bytes]) -> Any:
    """Return a stream's outcome in a form that compares and prints well."""
    chunks, end = golden.read(kind, case, pieces)
    return chunks, (orjson.loads(end.body), replace(end, body=b"")) if isinstance(end, Completion) else end


def strange(kind: str, url: str, body: bytes, status: int = 200) -> None:
    """Let an adapter read what no vendor would answer, in every way there is."""
    speaks = golden.speaks(kind)
    call = Call(url, {**golden.plain(kind)["body"], "input": "hi"}, "job_1-1")
    head = HttpResponse(status, {"content-type": "text/event-stream", "retry-after": "soon"}, b"")
    response = replace(head, body=body)
    assert isinstance(speaks.completion(response, call), Completion | ProviderError)
    refused = speaks.error(response)
    assert isinstance(refused, ProviderError)
    assert refused.kind in HANDLING
    assert 0 < len(refused.message) <= 1_000
    if url != "/v1/embeddings":
        for sent in (body, b"data: " + body + b"\n\n"):
            reader = speaks.stream(head, replace(call, body={**call.body, "stream": True}))
            found = [*reader.feed(sent), *reader.feed(b"data: [DONE]\n\n"), *reader.last()]
            assert all(isinstance(chunk, dict) for chunk in found)
            assert isinstance(reader.end(), Completion | ProviderError)


# ------------------------------------------------------------------ every kind


def test_every_file_and_every_row_of_the_table_is_a_kind() -> None:
    assert {"openai", "openai_compatible", "azure_openai", "mistral", "simulated", *VENDORS} <= set(kinds())
    assert kinds() == sorted(set(kinds()))
    assert not VENDORS.keys() & set(golden.files())
    with pytest.raises(KeyError):
        adapter("nobody")


@pytest.mark.parametrize("kind", kinds())
def test_it_holds_what_an_adapter_holds(kind: str) -> None:
    speaks = golden.speaks(kind)
    assert adapter(kind) is speaks
    assert not speaks.DEFAULT_BASE_URL or speaks.DEFAULT_BASE_URL.startswith(("https://", "http://127.0.0.1:"))
    assert not speaks.DEFAULT_BASE_URL.endswith("/")
    assert isinstance(speaks.ROUTES, frozenset)
    assert frozenset() < speaks.ROUTES <= ROUTES
    for name, parameters in PARAMETERS.items():
        assert len(inspect.signature(getattr(speaks, name)).parameters) == len(parameters), name


@pytest.mark.parametrize("kind", VENDORS)
def test_every_row_is_read_as_any_server_is(kind: str) -> None:
    for name in ("completion", "stream", "error"):
        assert getattr(adapter(kind), name) is getattr(adapter("openai_compatible"), name)


@pytest.mark.parametrize("kind", golden.files())
def test_every_file_has_golden_files(kind: str) -> None:
    golden.speaks(kind)
    needed = {"requests", "answers", "errors"}
    if "/v1/chat/completions" in adapter(kind).ROUTES:
        needed.add("streams")
    assert {name for name in needed if not golden.cases(kind, name)} == set()


def test_every_golden_file_is_of_a_kind_and_is_read() -> None:
    found = [path.relative_to(golden.ROOT) for path in golden.ROOT.rglob("*") if path.is_file()]
    assert {path.parent.name for path in found} <= set(kinds())
    assert {path.name for path in found} <= {f"{name}.json" for name in golden.FILES}


@pytest.mark.parametrize("kind", kinds())
def test_a_plain_request_has_no_faults_and_hides_its_key(kind: str) -> None:
    speaks, case = golden.speaks(kind), golden.plain(kind)
    call, where = golden.call_of(case), golden.deployment(kind, case)
    before = orjson.dumps(call.body)
    assert speaks.faults(call) == []
    request = speaks.request(call, where, case["key"])
    assert case["key"] not in repr(request)
    assert case["key"].encode() not in request.body
    assert orjson.dumps(call.body) == before, "the caller's body was changed"
    absent = dict.fromkeys(("seed", "n", "logit_bias", "audio", "stop", "tools", "response_format", "max_tokens"))
    assert speaks.faults(replace(call, body={**absent, **call.body})) == []


@pytest.mark.parametrize("kind", golden.files())
@pytest.mark.parametrize("body", [b"", b" ", b"<html>502</html>", b"null", b"[]", b"5", b'"x"', b"{", b"{}", b"\xff"])
def test_what_is_no_answer_is_an_invalid_response(kind: str, body: bytes) -> None:
    speaks = golden.speaks(kind)
    for url in speaks.ROUTES:
        strange(kind, url, body)
        found = speaks.completion(HttpResponse(200, {}, body), Call(url, golden.plain(kind)["body"], "job_1-1"))
        assert isinstance(found, ProviderError)
        assert found.kind is ErrorKind.INVALID_RESPONSE


@pytest.mark.parametrize("kind", golden.files())
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (408, ErrorKind.TIMEOUT),
        (429, ErrorKind.RATE_LIMITED),
        (500, ErrorKind.SERVER_ERROR),
        (502, ErrorKind.SERVER_ERROR),
        (503, ErrorKind.OVERLOADED),
        (504, ErrorKind.TIMEOUT),
    ],
)
def test_a_status_alone_says_enough(kind: str, status: int, error: ErrorKind) -> None:
    for body in (b"", b"<html><body>Sorry</body></html>", b"{}"):
        found = golden.speaks(kind).error(HttpResponse(status, {"retry-after": "7"}, body))
        assert (found.kind, found.status, found.retry_after) == (error, status, 7.0)
        assert found.message


@pytest.mark.parametrize("kind", golden.files())
def test_no_bytes_break_it(kind: str) -> None:
    routes = sorted(golden.speaks(kind).ROUTES)

    @few
    @given(st.sampled_from(routes), st.binary(max_size=64), st.sampled_from([200, 400, 429, 500]))
    def hang(url: str, body: bytes, status: int) -> None:
        strange(kind, url, body, status)

    hang()


@pytest.mark.parametrize("kind", golden.files())
def test_no_json_breaks_it(kind: str) -> None:
    routes = sorted(golden.speaks(kind).ROUTES)

    @few
    @given(st.sampled_from(routes), OBJECT, st.sampled_from([200, 400, 429, 500]))
    def hang(url: str, body: dict[str, Any], status: int) -> None:
        strange(kind, url, orjson.dumps(body), status)

    hang()


@pytest.mark.parametrize("kind", golden.files())
def test_no_depth_breaks_it(kind: str) -> None:
    for depth in (200, 500, 1_015, 100_000):
        deep = b"[" * depth + b"]" * depth
        for shape in DEEP:
            strange(kind, min(golden.speaks(kind).ROUTES), shape.replace(b"%s", deep))


@pytest.mark.parametrize("kind", [kind for kind in golden.files() if golden.cases(kind, "answers")])
def test_no_golden_answer_with_one_thing_wrong_breaks_it(kind: str) -> None:
    @few
    @given(st.sampled_from(golden.cases(kind, "answers")), SCALARS | OBJECT | st.lists(JSON, max_size=2), st.randoms())
    def hang(case: dict[str, Any], wrong: Any, rng: random.Random) -> None:
        answer = orjson.loads(orjson.dumps(case["answer"]))
        _replace_one(answer, wrong, rng)
        strange(kind, case["url"], orjson.dumps(answer))

    hang()


def _replace_one(value: Any, wrong: Any, rng: random.Random) -> None:
    """Put `wrong` somewhere into a JSON value."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = rng.choice(keys) if keys else None
        if key is None:
            return
        if not isinstance(value[key], dict | list) or not value[key] or rng.random() < 0.3:
            value[key] = wrong
            return
        value = value[key]


# ------------------------------------------------------------------ golden files


@pytest.mark.parametrize(("kind", "case"), golden.every("requests"))
def test_a_golden_request(kind: str, case: dict[str, Any]) -> None:
    speaks, call = golden.speaks(kind), golden.call_of(case)
    assert speaks.faults(call) == []
    request = speaks.request(call, golden.deployment(kind, case), case["key"])
    expected = case["upstream"]
    assert request.url == expected["url"]
    assert expected.get("headers", {}).items() <= request.headers.items()
    assert all(name == name.lower() for name in request.headers)
    if "body" in expected:
        assert orjson.loads(request.body) == expected["body"]
    assert case["key"] not in repr(request)


@pytest.mark.parametrize(("kind", "case"), golden.every("answers"))
def test_a_golden_answer(kind: str, case: dict[str, Any]) -> None:
    found = golden.speaks(kind).completion(golden.response(case), golden.call_of(case))
    assert isinstance(found, Completion), found
    assert orjson.loads(found.body) == case["completion"]
    assert found.usage == usage_of(case)
    assert found.request_id == case["request_id"]
    assert found.model


@pytest.mark.parametrize(("kind", "case"), golden.every("streams"))
def test_a_golden_stream_however_it_is_cut(kind: str, case: dict[str, Any]) -> None:
    raw, rng = golden.raw(case), random.Random(7)
    chunks, end = golden.read(kind, case, [raw])
    if "error" in case:
        assert isinstance(end, ProviderError), end
        assert end.kind == case["error"]
        assert chunks == case.get("chunks", chunks)
    else:
        assert isinstance(end, Completion), end
        assert chunks == case["chunks"]
        assert orjson.loads(end.body) == case["completion"]
        assert end.usage == usage_of(case)
        if case["url"] == golden.CHAT:
            assert said_in_pieces(chunks) == [said(choice) for choice in case["completion"]["choices"]]
    expected = outcome(kind, case, [raw])
    assert outcome(kind, case, [bytes([byte]) for byte in raw]) == expected
    for _ in range(10):
        edges = [0, *sorted(rng.randrange(len(raw) + 1) for _ in range(rng.randrange(1, 9))), len(raw)]
        assert outcome(kind, case, [raw[start:stop] for start, stop in pairwise(edges)]) == expected


@pytest.mark.parametrize(("kind", "case"), golden.every("streams"))
def test_a_golden_stream_that_ends_early_is_an_error_or_whole(kind: str, case: dict[str, Any]) -> None:
    raw = golden.raw(case)
    for length in range(0, len(raw), max(1, len(raw) // 25)):
        _, end = golden.read(kind, case, [raw[:length]])
        assert isinstance(end, Completion | ProviderError)
        if length == 0:
            assert isinstance(end, ProviderError)
            assert end.kind is ErrorKind.INVALID_RESPONSE


@pytest.mark.parametrize(("kind", "case"), golden.every("errors"))
def test_a_golden_error(kind: str, case: dict[str, Any]) -> None:
    response, speaks = golden.response(case), golden.speaks(kind)
    inside = 200 <= response.status < 300
    found = speaks.completion(response, golden.call_of(case)) if inside else speaks.error(response)
    assert isinstance(found, ProviderError), found
    assert (found.kind, found.retry_after, found.status) == (case["kind"], case["retry_after"], response.status)
    assert found.message
    assert case["key"] not in found.message


@pytest.mark.parametrize(("kind", "case"), golden.every("faults"))
def test_golden_faults(kind: str, case: dict[str, Any]) -> None:
    found = golden.speaks(kind).faults(golden.call_of(case))
    assert sorted(fault.param for fault in found) == sorted(case["params"])
    assert all(isinstance(fault, Fault) and fault.message for fault in found)
    assert {fault.code for fault in found} <= {"unsupported_parameter"}
