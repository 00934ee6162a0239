"""Counts are tiktoken's own, with no network and no home."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from shared import tokens

DOCUMENTS = Path(__file__).parents[2] / "examples" / "documents"

OFFLINE = """
import socket
def refuse(*_, **__): raise AssertionError("the network was asked")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from shared import tokens
assert tokens.count("hello world", "gpt-4o") == tokens.TokenCount(3, exact=False)
tokens.load()
for model, number in (("gpt-4o", 2), ("openai/gpt-4", 2), ("gpt-5-mini", 2)):
    assert tokens.count("hello world", model) == tokens.TokenCount(number, exact=True), model
assert tokens.count("hello world", "claude-x").exact is False
print("good")
"""


@pytest.mark.parametrize("home", ["", "/nonexistent", "fresh"])
def test_the_tables_need_neither_network_nor_home(tmp_path: Path, home: str) -> None:
    env = {name: value for name, value in os.environ.items() if name not in ("XDG_CACHE_HOME", "TIKTOKEN_CACHE_DIR")}
    env["HOME"] = str(tmp_path) if home == "fresh" else home
    env["TMPDIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", OFFLINE], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "good", done.stderr
    if home == "fresh":
        assert (tmp_path / ".cache" / "sluice" / "tiktoken").stat().st_mode & 0o077 == 0


def test_a_damaged_table_is_replaced_before_tiktoken_would_download_it(tmp_path: Path) -> None:
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    cache = tmp_path / "sluice" / "tiktoken"

    def load() -> dict[str, bytes]:
        done = subprocess.run([sys.executable, "-c", OFFLINE], env=env, capture_output=True, text=True, timeout=60)
        assert done.stdout.strip() == "good", done.stderr
        return {path.name: path.read_bytes() for path in cache.iterdir()}

    tables = load()
    assert len(tables) == 2
    damaged, kept = sorted(cache.iterdir())
    damaged.write_bytes(damaged.read_bytes()[:-1000])
    before = kept.stat().st_mtime_ns
    assert load() == tables
    assert kept.stat().st_mtime_ns == before


def test_a_directory_that_others_can_write_to_is_not_used(tmp_path: Path) -> None:
    cache = tmp_path / "sluice" / "tiktoken"
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", OFFLINE], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "good", done.stderr
    assert list(cache.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["sluice"], "the temporary directory was left behind"


def test_many_threads_may_load_at_once(tmp_path: Path) -> None:
    code = """
import os, threading
from shared import tokens
wrong = []
threading.excepthook = wrong.append
threads = [threading.Thread(target=tokens.likely_input, args=({}, "gpt-4o")) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not wrong, wrong
assert "TIKTOKEN_CACHE_DIR" not in os.environ
print("good")
"""
    env = {name: value for name, value in os.environ.items() if name != "TIKTOKEN_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**env, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "good", done.stderr


def test_the_example_of_openais_reference() -> None:
    tokens.load()
    messages = [
        {"role": "developer", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Hello!"},
    ]
    assert tokens.count_request({"messages": messages}, "gpt-4o").tokens == 19


def test_a_request_counts_its_messages_and_what_the_format_adds() -> None:
    tokens.load()
    one = {"messages": [{"role": "user", "content": "hello world"}]}
    assert tokens.count_request(one, "gpt-4o").tokens == 2 + 4 + 3
    parts = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hello world"}, {"type": "image_url"}]}]
    }
    assert tokens.count_request(parts, "gpt-4o").tokens == 9
    assert tokens.count_request({"input": ["hello world", "hello"]}, "gpt-4o").tokens == 3
    assert tokens.count_request({"input": "hello world"}, "gpt-4o").tokens == 2
    assert tokens.count_request({"input": [1, 2, 3]}, "gpt-4o").tokens == 3
    assert tokens.count_request({"input": [[1, 2, 3], [4]]}, "gpt-4o").tokens == 4
    assert tokens.count_request({}, "gpt-4o").tokens == 0


def test_a_model_with_another_encoding_is_counted_in_bytes() -> None:
    tokens.load()
    for text, number in (("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("ééé", 2), ("\ud800", 1)):
        assert tokens.count(text, "claude-x") == tokens.TokenCount(number, exact=False)


def test_long_texts_are_counted_like_short_ones() -> None:
    tokens.load()
    text = " ".join(path.read_text() for path in sorted(DOCUMENTS.glob("*.txt"))[:8])
    assert len(text) > 100_000  # many pieces
    for model in ("gpt-4o", "gpt-4"):
        assert tokens.count(text, model).tokens == len(tiktoken.encoding_for_model(model).encode_ordinary(text))


def test_a_text_without_spaces_does_not_take_for_ever() -> None:
    tokens.load()
    begun = time.monotonic()
    assert tokens.count("a" * 1_000_000, "gpt-4o").tokens > 100_000
    # As one piece, this overflows the encoder's stack.
    assert tokens.count(" " * 1_000_000, "gpt-4o").tokens < 100_000
    assert time.monotonic() - begun < 10


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["content", "text", "role", "type"]), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["messages", "input", "model"]), ANY | st.lists(ANY)))
def test_no_body_breaks_it(body: dict[str, Any]) -> None:
    tokens.load()
    for model in ("gpt-4o", "gpt-4", "claude-x"):
        assert tokens.count_request(body, model).tokens >= 0


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_text_has_more_tokens_than_bytes(text: str) -> None:
    tokens.load()
    for model in ("gpt-4o", "gpt-4", "claude-x"):
        assert tokens.count(text, model).tokens <= len(text.encode())
