"""The most that a request's input can be: never less than what it is, and close to it where that can be known."""

from pathlib import Path
from typing import Any

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from shared import tokens

DOCUMENTS = Path(__file__).parents[2] / "examples" / "documents"
KNOWN, OTHER = "gpt-4o", "claude-x"
TEXTS = st.text(max_size=300) | st.text(alphabet="0123456789 .,!{}", max_size=300)
ROLES = st.sampled_from(["system", "user", "assistant", "developer"])


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """Load the encodings, which takes longer than an example may."""
    tokens.load()


def chat(content: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


@given(st.lists(st.tuples(ROLES, TEXTS), min_size=1, max_size=5), st.sampled_from([KNOWN, "gpt-4"]))
def test_of_texts_it_is_the_exact_count_and_little_more(said: list[tuple[str, str]], model: str) -> None:
    body = {"messages": [{"role": role, "content": text} for role, text in said]}
    exact = tokens.count_request(body, model).tokens
    most = tokens.most_input(body, [model])
    assert exact <= most <= exact * 1.02 + 16 + 2 * len(said)
    assert tokens.likely_input(body, model) == exact


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_the_same_for_embeddings(texts: list[str]) -> None:
    for given_ in (texts, texts[0], [[1, 2, 3], [4]], [1, 2, 3]):
        body = {"input": given_}
        exact = tokens.count_request(body, "text-embedding-3-small").tokens
        assert exact <= tokens.most_input(body, ["text-embedding-3-small"]) <= exact * 1.02 + 16 + 2 * 5
        assert tokens.likely_input(body, "text-embedding-3-small") == exact


@given(TEXTS)
def test_of_another_vendors_tokens_it_is_never_less_than_half_the_bytes(text: str) -> None:
    assert tokens.most_input(chat(text * 50), [OTHER]) >= len(text.encode()) * 50 / 2


@given(st.text(alphabet="0123456789.,;:!?(){}[]<>+-*/=@#%&äöüß漢字かな한국어🙂🎉", max_size=300))
def test_digits_signs_and_other_scripts_may_be_a_token_a_byte(text: str) -> None:
    assert tokens.most_input(chat(text * 50), [OTHER]) >= len(text.encode()) * 50


@pytest.mark.parametrize("path", sorted(DOCUMENTS.iterdir()), ids=lambda path: path.name)
def test_of_real_texts_it_is_more_than_any_known_tokenizer_says(path: Path) -> None:
    text = path.read_text()
    most = tokens.most_input(chat(text), [OTHER])
    for name in ("o200k_base", "cl100k_base"):
        assert len(tiktoken.get_encoding(name).encode_ordinary(text)) < most < len(text.encode())


def test_of_several_models_it_is_the_one_with_most() -> None:
    body = chat("Ein Satz, der in keinem der beiden gleich viele Tokens hat: Donaudampfschifffahrt. " * 20)
    each = [tokens.most_input(body, [model]) for model in (KNOWN, "gpt-4", OTHER)]
    assert len(set(each)) == 3
    assert tokens.most_input(body, [KNOWN, "gpt-4", OTHER]) == max(each)
    assert tokens.most_input(body, [KNOWN, "gpt-4o-mini"]) == each[0]
    assert tokens.most_input(body, []) == each[2]


def test_what_only_says_how_to_answer_is_no_input() -> None:
    plain = chat("hello")
    options = {"temperature": 1, "user": "x" * 256, "metadata": {"k": "v" * 500}, "simulate": {"delay": 1}, "n": None}
    assert tokens.most_input(plain | options, [KNOWN]) == tokens.most_input(plain, [KNOWN])


def test_tools_and_schemas_count_by_their_length() -> None:
    schema = {"type": "object", "properties": {f"field_{number}": {"type": "string"} for number in range(50)}}
    plain = chat("hello")
    for more in (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}},
        {"something_new": schema},
    ):
        assert tokens.most_input(plain | more, [KNOWN]) - tokens.most_input(plain, [KNOWN]) >= len(str(schema)) / 2


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4_000_000}},
        {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}},
        {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 4_000_000},
        {"type": "new", "picture": "data:image/png;base64," + "A" * 4_000_000},
    ],
)
def test_an_image_is_a_few_thousand_however_long(part: dict[str, Any]) -> None:
    text = {"type": "text", "text": "What is it?"}
    one, two = (tokens.most_input(chat([text, *[part] * number]), [KNOWN]) for number in (1, 2))
    assert 2_000 <= two - one <= 6_000


def test_a_file_counts_by_its_length() -> None:
    part = {"type": "file", "file": {"file_data": "data:application/pdf;base64," + "A" * 400_000}}
    assert 100_000 <= tokens.most_input(chat([part]), [KNOWN]) <= 120_000


def test_whatever_shape_a_body_has() -> None:
    deep: Any = "x"
    for _ in range(5_000):
        deep = [deep]
    for body in ({}, {"messages": [None, 1, [], {"content": 3}, {"role": "user"}]}, {"input": {}}, {"tools": deep},
                 {"messages": [{"role": "tool", "content": "x", "tool_call_id": "c" * 100}]},
                 {"messages": [{"role": "user", "name": "n" * 100, "content": [{"type": "text", "text": 1}]}]},
                 {"instructions": "be brief", "input": [{"type": "message", "role": "user", "content": "x"}]},
                 ):  # fmt: skip
        assert tokens.most_input(body, [KNOWN]) >= 16
        assert tokens.likely_input(body, KNOWN) >= 0
