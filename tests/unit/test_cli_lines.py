"""A submitted file's lines: the three forms, the faults, the chunks."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from shared.cli import lines
from shared.cli.lines import Chunk, Defaults, chunk_body, request, survey

HELLO = [{"role": "user", "content": "hello"}]


def write(path: Path, *entries: object) -> Path:
    path.write_text("".join((e if isinstance(e, str) else json.dumps(e)) + "\n" for e in entries))
    return path


def test_a_batch_line_keeps_all_it_says() -> None:
    line = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", "input": "x"}}
    assert request(json.dumps(line).encode(), 1, Defaults("other", "bulk")) == {**line, "priority": "bulk"}


def test_a_line_s_own_priority_wins() -> None:
    line = {"priority": "interactive", "body": {"model": "m", "messages": HELLO}}
    made = request(json.dumps(line).encode(), 1, Defaults(priority="bulk"))
    assert isinstance(made, dict)
    assert made["priority"] == "interactive"


def test_a_prompt_becomes_a_message_and_is_named_after_its_line() -> None:
    assert request(b'{"prompt": "hello"}', 7, Defaults("m")) == {
        "custom_id": "line-7",
        "body": {"model": "m", "messages": HELLO},
    }


OPTIONS = {
    "priority": "bulk",
    "run_at": "2100-01-01T00:00:00Z",
    "deadline": "2100-01-02T00:00:00Z",
    "max_cost_usd": "0.01",
    "webhook": {"url": "https://example.com/"},
    "depends_on": ["other"],
    "on_dependency_failure": "continue",
    "metadata": {"k": "v"},
}


@pytest.mark.parametrize(
    ("bare", "body", "url"),
    [
        ({"prompt": "hello", "model": "m"}, {"messages": HELLO, "model": "m"}, {}),
        ({"messages": HELLO, "model": "m", "temperature": 0.5}, None, {}),
        ({"messages": HELLO, "model": "m", "max_tokens": 5}, None, {"url": "/v1/messages"}),
        ({"input": "x", "model": "m"}, None, {"url": "/v1/embeddings"}),
        ({"input": "x", "model": "m"}, None, {"url": "/v1/responses"}),
    ],
)
def test_a_bare_line_has_a_job_s_options_which_are_not_sent(
    tmp_path: Path, bare: dict[str, Any], body: dict[str, Any] | None, url: dict[str, str]
) -> None:
    file = write(tmp_path / "f.jsonl", {**bare, **OPTIONS, **url, "custom_id": "c"})
    surveyed = survey(file, Defaults(priority="standard"))
    assert surveyed.faults == ()
    assert orjson.loads(chunk_body(file, surveyed.chunks[0], Defaults(priority="standard")))["requests"] == [
        {**OPTIONS, **url, "custom_id": "c", "body": body or bare}
    ]


def test_a_bare_body_is_known_by_its_messages_or_its_input() -> None:
    chat = {"model": "m", "messages": HELLO, "user": "u"}
    assert request(json.dumps(chat | {"custom_id": "c"}).encode(), 1, Defaults()) == {"custom_id": "c", "body": chat}
    embeddings = {"model": "m", "input": ["a"]}
    assert request(json.dumps(embeddings).encode(), 2, Defaults("other")) == {
        "custom_id": "line-2",
        "url": "/v1/embeddings",
        "body": embeddings,
    }


def test_every_faulty_line_is_listed_with_its_number(tmp_path: Path) -> None:
    good = {"custom_id": "a", "prompt": "x", "model": "m"}
    file = write(
        tmp_path / "f.jsonl",
        good,
        "{not json",
        "",
        [1],
        {"question": "x"},
        {"prompt": 3, "model": "m"},
        {"prompt": "x"},
        good,
        {"body": {"model": "m", "messages": []}, "priority": "soon"},
        {"prompt": "a\0b", "model": "m"},
        {"prompt": "x", "model": "m", "custom_id": 5},
    )
    found = survey(file, Defaults()).faults
    by_line = {int(fault.split(":")[0].removeprefix("line ")): fault for fault in found}
    assert set(by_line) == {2, 4, 5, 6, 7, 8, 9, 10, 11}
    assert "is not JSON" in by_line[2]
    assert "is not a JSON object" in by_line[4]
    assert "none of `body`" in by_line[5]
    assert "must be a string" in by_line[6]
    assert "--model" in by_line[7]
    assert "already that of line 1" in by_line[8]
    assert "priority" in by_line[9]
    assert "NUL" in by_line[10]
    assert "custom_id" in by_line[11]


def test_what_stands_beside_a_prompt_is_a_job_s_option(tmp_path: Path) -> None:
    unknown = {"prompt": "x", "model": "m", "dependson": ["a"], "temperature": 0}
    file = write(tmp_path / "f.jsonl", unknown, {"prompt": "x", "model": "m", "priority": "soon"})
    first, second = survey(file, Defaults()).faults
    assert first.startswith("line 1: `dependson`, `temperature` cannot stand beside `prompt`")
    assert second.startswith("line 2: priority: ")


def test_only_the_first_faults_are_listed_and_the_others_counted(tmp_path: Path) -> None:
    file = write(tmp_path / "f.jsonl", *["nonsense"] * 6_000)
    found = survey(file, Defaults()).faults
    assert len(found) == 11
    assert found[9].startswith("line 10: ")
    assert found[-1] == "… and 5,990 more"
    assert not any("more" in fault for fault in survey(write(file, *["nonsense"] * 10), Defaults()).faults)


def test_a_line_without_a_body_object_is_a_fault(tmp_path: Path) -> None:
    assert survey(write(tmp_path / "f.jsonl", {"body": "text"}), Defaults("m")).faults


def test_an_empty_file_has_nothing_to_send(tmp_path: Path) -> None:
    assert survey(write(tmp_path / "f.jsonl", "", "  "), Defaults("m")).faults == ("there is no request in it",)


def test_chunks_hold_every_line_once_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "CHUNK_LINES", 3)
    prompts = [f"nº {n}" for n in range(8)]
    file = write(
        tmp_path / "f.jsonl", "", *({"prompt": text} for text in prompts[:4]), "", *({"prompt": t} for t in prompts[4:])
    )
    surveyed = survey(file, Defaults("m"))
    assert [chunk.lines for chunk in surveyed.chunks] == [3, 3, 2]
    assert [chunk.first for chunk in surveyed.chunks] == [2, 5, 9]
    assert surveyed.lines == 8
    sent = [
        line for chunk in surveyed.chunks for line in orjson.loads(chunk_body(file, chunk, Defaults("m")))["requests"]
    ]
    assert [line["body"]["messages"][0]["content"] for line in sent] == prompts
    assert [line["custom_id"] for line in sent] == [f"line-{n}" for n in (2, 3, 4, 5, 7, 8, 9, 10)]


def test_a_chunk_ends_where_its_bytes_would_be_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "CHUNK_BYTES", 100)
    file = write(
        tmp_path / "f.jsonl", {"prompt": "x" * 60}, {"prompt": "x" * 60}, {"prompt": "y"}, {"prompt": "z" * 300}
    )
    assert [chunk.lines for chunk in survey(file, Defaults("m")).chunks] == [1, 2, 1]


def test_what_the_options_add_to_each_line_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "CHUNK_BYTES", 100)
    file = write(tmp_path / "f.jsonl", {"prompt": "x"}, {"prompt": "y"})
    assert len(survey(file, Defaults("m")).chunks) == 1
    assert len(survey(file, Defaults("m", schema={"name": "x" * 50})).chunks) == 2


def test_the_digest_names_content_and_options(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", {"prompt": "x"})
    same = write(tmp_path / "b.jsonl", {"prompt": "x"})
    moved = write(tmp_path / "c.jsonl", "", {"prompt": "x"})
    digest = survey(file, Defaults("m")).digest
    assert survey(same, Defaults("m")).digest == digest
    assert survey(moved, Defaults("m")).digest != digest
    assert survey(file, Defaults("n")).digest != digest
    others: list[dict[str, Any]] = [
        {"priority": "bulk"},
        {"max_tokens": 5},
        {"schema": {"name": "a"}},
        {"max_cost": Decimal(1)},
    ]
    for other in others:
        assert survey(file, Defaults("m", **other)).digest != digest


def test_a_last_line_without_a_line_break_counts(tmp_path: Path) -> None:
    file = tmp_path / "f.jsonl"
    file.write_text('{"prompt": "a"}\n{"prompt": "b"}')
    assert survey(file, Defaults("m")).chunks == (Chunk(0, 1, 2),)
