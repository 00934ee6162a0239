"""Prompt templates: what stands for what, what is refused, and that nothing is evaluated."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.cli.client import CliError
from shared.cli.template import parse


def test_names_are_replaced_and_doubled_braces_are_text() -> None:
    template = parse("{{In}} {words} words, {the words}:\n\n{text}{text}")
    values = {"words": "5", "the words": "no more", "text": "{words} {{x}}"}
    assert template.fill(values) == "{In} 5 words, no more:\n\n{words} {{x}}{words} {{x}}"


@pytest.mark.parametrize("text", ["{", "}", "a } b", "{a", "{{a}", "{a{b}}", "{a}}"])
def test_a_brace_that_stands_alone_is_refused(text: str) -> None:
    with pytest.raises(CliError, match="stands alone"):
        parse(text)


@pytest.mark.parametrize("name", ["text.__class__", "text[0]", "text!r", "text:>9", "0", "", "a}{b"[:1]])
def test_a_name_is_taken_as_it_is(name: str) -> None:
    template = parse(f"<{{{name}}}>")
    with pytest.raises(CliError, match=r"the columns are {text}, {id}"):
        template.refuse_unknown(("text", "id"), what="columns")
    template.refuse_unknown((name,), what="columns")
    assert template.fill({name: "value"}) == "<value>"


@given(st.text())
def test_text_whose_braces_are_doubled_comes_out_as_it_was(text: str) -> None:
    assert parse(text.replace("{", "{{").replace("}", "}}")).fill({}) == text


@given(st.text(alphabet="{}ab.[]!:_0", max_size=30), st.text(alphabet="{}ab", max_size=10))
def test_whatever_is_written_only_names_are_replaced_by_just_their_values(text: str, value: str) -> None:
    try:
        template = parse(text)
    except CliError:
        return
    names = [name for _, name in template.pieces if name is not None]
    assert all("{" not in name and "}" not in name for name in names)
    filled = template.fill(dict.fromkeys(names, value))
    plain = sum(len(piece) for piece, _ in template.pieces)
    assert len(filled) == plain + len(names) * len(value)
