"""The examples' pure parts: titles, parts of long documents, a document's way through the rounds, a book's plan."""

import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import book
import corpus
import summarize

WISH = summarize.Wish("m", context_words=100, summary_words=20)


def line(text: str = "short", cost: str | None = "0.1", error: dict[str, str] | None = None) -> dict[str, Any]:
    body = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
    response = None if error else {"status_code": 200, "body": body}
    return {"response": response, "error": error, "cost_usd": cost}


def document(words: int) -> corpus.Document:
    return corpus.Document("d", "D", " ".join(f"Word {n} is here." for n in range(words // 4)))


def test_titles() -> None:
    assert corpus.title("1790_george_washington_n") == "1790 George Washington"
    assert corpus.title("notes") == "Notes"


def test_the_documents_of_this_repository_are_read_without_their_readme() -> None:
    found = corpus.read(Path(corpus.__file__).parent / "documents")
    assert len(found) > 50
    assert "README" not in {each.name for each in found}


def test_a_short_text_is_one_part() -> None:
    assert corpus.split(" A text. ", 5) == ["A text."]


@pytest.mark.parametrize("most", [7, 50, 333, 10_000])
def test_parts_hold_every_word_once_and_none_is_too_long(most: int) -> None:
    text = corpus.read(Path(corpus.__file__).parent / "documents")[0].text
    parts = corpus.split(text, most)
    assert " ".join(parts).split() == text.split()
    assert all(0 < len(part.split()) <= most for part in parts)


def test_parts_end_with_a_sentence_and_are_about_as_long() -> None:
    text = " ".join("One two three four five." for _ in range(100))
    parts = corpus.split(text, 120)
    assert all(part.endswith(".") for part in parts)
    assert len(parts) == 5
    assert {len(part.split()) for part in parts} == {100}


def test_a_short_document_is_summarized_in_one_round() -> None:
    work = summarize.advanced(summarize.first(document(40), WISH), [line("  done ")], WISH)
    assert (work.summary, work.cost, work.parts, work.open) == ("done", Decimal("0.1"), 1, False)


def test_the_summaries_of_parts_are_summarized_next() -> None:
    work = summarize.first(document(300), WISH)
    assert (work.parts, len(work.texts)) == (3, 3)
    work = summarize.advanced(work, [line("one."), line("two."), line("three.")], WISH)
    assert work.open
    assert work.texts == ("one. two. three.",)
    work = summarize.advanced(work, [line("all")], WISH)
    assert (work.summary, work.cost, work.parts) == ("all", Decimal("0.4"), 3)


def test_a_part_that_failed_fails_its_document_and_says_so() -> None:
    failed = line(error={"code": "timeout", "message": "too slow"})
    work = summarize.advanced(summarize.first(document(300), WISH), [line(), failed, line()], WISH)
    assert (work.summary, work.fault) == (None, "part 2 of 3: timeout: too slow")
    assert work.cost == Decimal("0.3")


def test_an_empty_answer_is_a_failure() -> None:
    work = summarize.advanced(summarize.first(document(40), WISH), [line("")], WISH)
    assert work.fault == "the model answered nothing (finish_reason stop)"


def test_an_unknown_price_makes_the_document_s_cost_unknown() -> None:
    work = summarize.advanced(summarize.first(document(300), WISH), [line(cost=None), line(), line()], WISH)
    assert work.cost is None


def test_an_empty_document_is_not_sent() -> None:
    assert summarize.first(corpus.Document("d", "D", " \n"), WISH).fault == "it is empty"


@pytest.mark.parametrize(
    ("parts", "levels"), [(1, [1]), (2, [2, 1]), (20, [20, 1]), (21, [21, 2, 1]), (401, [401, 21, 2, 1])]
)
def test_a_book_s_plan_puts_every_part_into_the_whole_once(parts: int, levels: list[int]) -> None:
    lines = {one["custom_id"]: one for one in book.plan([f"text {number}" for number in range(parts)], WISH)}
    at, found = [book.WHOLE], []
    while at:
        found.append(len(at))
        for name in at:
            body = str(lines[name]["body"])
            assert all(f"{{{{jobs.{one}.output}}}}" in body for one in lines[name].get("depends_on", []))
        at = [one for name in at for one in lines[name].get("depends_on", [])]
    assert found == levels[::-1]
    assert len(lines) == sum(levels)


def test_events_are_read_whole_and_what_is_only_said_to_stay_alive_is_left_out() -> None:
    stream = [
        b": still working\n",
        b"\n",
        b"event: result\n",
        b"id: 7\n",
        b'data: {"a": "\\n: b"}\n',
        b"\n",
        b"event: batch.progress\n",
        b"data: {}\n",
    ]
    assert list(book.events(stream)) == [("result", "7", {"a": "\n: b"})]
