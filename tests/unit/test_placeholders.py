"""What a job that waited for others gets of their answers."""

import orjson
import pytest

from shared import pipelines

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"


def said(*content: object, kind: str = "message") -> dict[str, object]:
    return {"type": kind, "content": list(content)}


@pytest.mark.parametrize(
    ("url", "answer", "text"),
    [
        (CHAT, {"choices": [{"message": {"content": "one"}}, {"message": {"content": "two"}}]}, "one"),
        (CHAT, {"choices": [{"message": {"content": None, "tool_calls": []}}]}, None),
        (CHAT, {"choices": []}, None),
        (RESPONSES, {"output": [said(kind="reasoning"), said({"type": "output_text", "text": "one"})]}, "one"),
        (RESPONSES, {"output": [said({"type": "refusal", "refusal": "no"}, {"type": "output_text"}), None, 7]}, ""),
        (MESSAGES, {"content": [{"type": "text", "text": "o"}, {"type": "text", "text": "ne"}]}, "one"),
        (MESSAGES, {"content": [None, "x", {"type": "text", "text": None}]}, ""),
        ("/v1/embeddings", {"data": [{"embedding": [0.5]}]}, None),
        (CHAT, [1], None),
    ],
)
def test_output_is_the_text_of_an_answer_or_the_answer(url: str, answer: object, text: str | None) -> None:
    raw = orjson.dumps(answer)
    assert pipelines.output(url, raw) == (raw.decode() if text is None else text)


def test_answers_are_put_in_as_they_are() -> None:
    body = orjson.dumps(
        {"{{jobs.a.output}}": [1, {"x": "<{{jobs.a.output}}|{{ jobs.b c.output }}|{{jobs.d.output}}>"}]}
    )
    outputs = {"a": '"\\1 {{jobs.b c.output}}\n', "b c": "B"}
    filled = pipelines.filled(body, outputs, most=1_000)
    assert filled is not None
    assert orjson.loads(filled) == {"{{jobs.a.output}}": [1, {"x": '<"\\1 {{jobs.b c.output}}\n|B|>'}]}


def test_asking_for_one_answer_again_and_again_does_not_pass_the_bound() -> None:
    body = orjson.dumps({"x": "{{jobs.a.output}}" * 100})
    most = len(body) + 100 * len('"12345"')
    assert pipelines.filled(body, {"a": "12345"}, most=most - 1) is None
    assert pipelines.filled(body, {"a": "12345"}, most=most) is not None
