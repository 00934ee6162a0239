"""Results files: what a record says of an answer, and that a file put in order loses and gains nothing."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from shared.cli.results import Record, append, put_in_order, read, record, write_texts

USAGE = {"prompt_tokens": 7, "completion_tokens": 3}


def completed(custom_id: str, body: dict[str, Any], *, cost: str | None = "0.5") -> dict[str, Any]:
    return {"custom_id": custom_id, "response": {"body": body}, "error": None, "cost_usd": cost, "cursor": "1"}


def chat(custom_id: str, text: str) -> dict[str, Any]:
    return completed(custom_id, {"model": "m", "choices": [{"message": {"content": text}}], "usage": USAGE})


def failed(custom_id: str, code: str, message: str = "no: really") -> dict[str, Any]:
    error = {"code": code, "message": message}
    return {"custom_id": custom_id, "response": None, "error": error, "cost_usd": None, "cursor": "1"}


@pytest.mark.parametrize(
    ("body", "output"),
    [
        ({"choices": [{"message": {"content": "text"}}]}, "text"),
        ({"choices": [{"message": {"content": None, "tool_calls": [1]}}]}, '{"content":null,"tool_calls":[1]}'),
        (
            {
                "output": [
                    {"type": "reasoning", "summary": []},
                    {"type": "message", "content": [{"type": "output_text", "text": "te"}, {"type": "refusal"}]},
                    {"type": "message", "content": [{"type": "output_text", "text": "xt"}]},
                ]
            },
            "text",
        ),
        ({"output": [{"type": "function_call"}]}, '[{"type":"function_call"}]'),
        (
            {
                "type": "message",
                "content": [
                    {"type": "thinking", "thinking": "hm"},
                    {"type": "text", "text": "te"},
                    {"type": "text", "text": "xt"},
                ],
            },
            "text",
        ),
        ({"type": "message", "content": [{"type": "tool_use"}]}, '[{"type":"tool_use"}]'),
        ({"data": [{"embedding": [0.5, 1]}]}, "[0.5,1]"),
        ({"something": "else"}, '{"something":"else"}'),
    ],
)
def test_an_answer_s_text_is_its_output_and_what_has_none_is_json(body: dict[str, Any], output: str) -> None:
    assert record(completed("a", body)).output == output


def test_a_record_says_how_a_job_ended_and_what_it_took() -> None:
    assert record(chat("a", "x")) == Record("a", "completed", "x", "", "0.5", 7, 3, "m")
    embedding = {"model": "e", "data": [], "usage": {"prompt_tokens": 2, "total_tokens": 2}}
    unpriced = record(completed("a", embedding, cost=None))
    assert (unpriced.cost_usd, unpriced.input_tokens, unpriced.output_tokens) == ("", 2, 0)
    answer = {"output": [], "usage": {"input_tokens": 4, "output_tokens": 5}}
    assert record(completed("a", answer)).input_tokens == 4
    assert record(completed("a", answer)).output_tokens == 5
    statuses = {code: record(failed("a", code)).status for code in ("cancelled", "batch_expired", "bad_request")}
    assert statuses == {"cancelled": "cancelled", "batch_expired": "expired", "bad_request": "failed"}
    assert record(failed("a", "bad_request")).error == "bad_request: no: really"


HARD = ['a "quoted" text', "two\nlines", "carriage\rreturn\r\n", ",;\t", '"', "", "ü" * 200_000, "\x00"]


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_what_is_appended_is_read_back_and_put_in_order(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    lines = [chat(f"row-{number}", text) for number, text in enumerate(HARD)] + [failed("row-3", "cancelled")]
    with out.open("ab") as file:
        append(file, lines[:3], as_csv=name == "out.csv")
        assert append(file, lines[3:], as_csv=name == "out.csv") == out.stat().st_size
    before = out.read_bytes()
    assert list(read(out)) == [record(line) for line in lines]

    put_in_order(out, [f"row-{number}" for number in (6, 3, 5, 0, 1, 2, 4, 7)])

    assert [one.custom_id for one in read(out)] == [f"row-{number}" for number in (6, 3, 3, 5, 0, 1, 2, 4, 7)]
    assert [one.status for one in read(out)][1:3] == ["completed", "cancelled"]
    assert Counter(read(out)) == Counter(record(line) for line in lines)
    assert out.stat().st_size == len(before)
    put_in_order(out, [f"row-{number}" for number in range(8)] + ["row-8"])
    with out.open("ab") as file:
        append(file, [chat("row-8", "later")], as_csv=name == "out.csv")
    assert [one.custom_id for one in read(out)][-1] == "row-8"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_each_answer_s_text_has_a_file_of_the_path_of_its_own(tmp_path: Path) -> None:
    out, texts = tmp_path / "results.jsonl", tmp_path / "deep" / "texts"
    with out.open("ab") as file:
        append(file, [chat("a/b.md", "ä\n"), failed("c.txt", "no"), chat("../../x", "evil"), chat("d.txt", "D")])
    write_texts(out, texts, ["a/b.md", "c.txt", "d.txt"])
    assert {str(path.relative_to(texts)) for path in tmp_path.rglob("*.txt")} == {"a/b.md.txt", "d.txt.txt"}
    assert (texts / "a" / "b.md.txt").read_text(encoding="utf-8") == "ä\n"


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_nothing_can_be_put_in_order_too(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    put_in_order(tmp_path / name, ["a"])
    assert list(read(tmp_path / name)) == []
