"""A vendor's own Responses, and those made of its chat, as ours: the job's id everywhere, numbers by attempt."""

from typing import Any

import orjson
import pytest

from shared.errors import ProviderError
from shared.providers import Call, Completion, Deployment, HttpResponse
from shared.serving import RESPONSES, serving

JOB = "0199a0b0c0d070008000000000000001"
BODY: dict[str, Any] = {"model": "fast", "input": "hi", "background": True, "previous_response_id": "resp_1"}
THEIRS = {
    "id": "resp_theirs",
    "object": "response",
    "status": "completed",
    "background": False,
    "previous_response_id": None,
    "store": True,
    "model": "gpt",
    "output": [{"id": "msg_1", "type": "message", "content": [{"type": "output_text", "text": "Hello"}]}],
    "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5},
}
OURS = {"id": f"resp_{JOB}", "background": True, "previous_response_id": "resp_1", "store": True}
HEAD = HttpResponse(200, {"content-type": "text/event-stream"}, b"")


def call(attempt: int = 1, **more: Any) -> Call:
    return Call(RESPONSES, BODY | more, f"job_{JOB}-{attempt}", "gpt")


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in events)


def whole(response: dict[str, Any]) -> Any:
    return serving("openai", RESPONSES).completion(HttpResponse(200, {}, orjson.dumps(response)), call())


@pytest.mark.parametrize("kind", ["openai", "azure_openai", "simulated", "anthropic"])
def test_what_only_we_know_of_is_not_sent(kind: str) -> None:
    speaks = serving(kind, RESPONSES)
    assert speaks.faults(call()) == []
    sent = orjson.loads(speaks.request(call(), Deployment("p", kind, "https://x.test", "gpt"), "k").body)
    assert not sent.keys() & {"background", "previous_response_id"}


def test_a_whole_answer_has_our_id() -> None:
    found = whole(THEIRS)
    assert isinstance(found, Completion)
    assert orjson.loads(found.body) == THEIRS | OURS
    assert found.usage.output == 2


@pytest.mark.parametrize("output", [THEIRS["output"], []])
def test_an_answer_that_was_cut_off_is_incomplete_whole_and_streamed(output: Any) -> None:
    details = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": output}
    reader = serving("openai", RESPONSES).stream(HEAD, call(stream=True))
    [event] = reader.feed(sse({"type": "response.incomplete", "response": THEIRS | details}))
    assert event["response"] == THEIRS | details | OURS
    for found in (whole(THEIRS | details), reader.end()):
        assert isinstance(found, Completion)
        assert orjson.loads(found.body) == THEIRS | details | OURS


def test_an_answer_without_output_is_broken() -> None:
    assert isinstance(whole(THEIRS | {"output": []}), ProviderError)


@pytest.mark.parametrize("attempt", [1, 2])
def test_events_have_our_id_and_numbers_without_gaps(attempt: int) -> None:
    reader = serving("openai", RESPONSES).stream(HEAD, call(attempt, stream=True))
    begun = THEIRS | {"status": "in_progress", "output": []}
    events = reader.feed(
        sse(
            {"type": "response.created", "sequence_number": 0, "response": begun},
            {"type": "response.in_progress", "sequence_number": 1, "response": begun},
            {"type": "response.output_text.delta", "sequence_number": 7, "delta": "Hello"},
            {"type": "response.completed", "sequence_number": 9, "response": THEIRS},
        )
    )
    assert reader.last() == []
    offset = 1_000_000 * (attempt - 1)
    assert [event["sequence_number"] for event in events] == [0, offset + 1, offset + 2, offset + 3]
    assert [event["response"]["id"] for event in events if "response" in event] == [OURS["id"]] * 3
    found = reader.end()
    assert isinstance(found, Completion)
    assert orjson.loads(found.body) == events[-1]["response"]


def test_events_made_of_chat_are_numbered_the_same_way() -> None:
    reader = serving("simulated", RESPONSES).stream(HEAD, call(2, stream=True))
    chunk = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": "stop"}]}
    events = reader.feed(sse(chunk) + b"data: [DONE]\n\n") + reader.last()
    assert [event["sequence_number"] for event in events] == [0, *range(1_000_001, 1_000_000 + len(events))]
    assert events[-1]["response"]["id"] == OURS["id"]
