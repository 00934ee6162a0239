"""Holding answers against JSON schemas: a process of its own, because a schema can be made to take for ever.

`python -m workers.checking` reads questions and writes what it found; who asks, `workers/check.py`, sees it end where
one took too much time or memory. It looks at no network and no file.
"""

import resource
import signal
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from typing import Any, BinaryIO

import jsonschema_rs
import orjson

from shared.output_schema import PATTERNS, path

_MOST_CPU_SECONDS = 0.5
_MOST_MEMORY = 2**29
_MOST_FINDINGS = 5
_LONGEST_FINDING, _LONGEST_VALUE, LONGEST_WORDS = 300, 60, 1_000
_LENGTH = struct.Struct("<I")

FITS, DOES_NOT_FIT, UNUSABLE = b"\x00", b"\x01", b"\x02"


def framed(question: bytes) -> bytes:
    """Return a message with its length before it."""
    return _LENGTH.pack(len(question)) + question


def main(asked: BinaryIO, told: BinaryIO) -> None:
    """Answer questions, each `{"schema": ..., "answers": [text, ...]}`, until there are no more.

    What is told is a byte, and where it is not `FITS` a frame with the words. That byte comes first: to find words may
    take longer than to find that some are due. Too much processor time (`SIGPROF`) or memory ends the process.
    """
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, _MOST_MEMORY)
    while head := asked.read(_LENGTH.size):
        signal.setitimer(signal.ITIMER_PROF, _MOST_CPU_SECONDS)
        question = orjson.loads(asked.read(*_LENGTH.unpack(head)))
        for part in verdict(orjson.dumps(question["schema"]), question["answers"]):
            told.write(framed(part.encode(errors="replace")) if isinstance(part, str) else part)
            if part == DOES_NOT_FIT:
                told.flush()
        signal.setitimer(signal.ITIMER_PROF, 0)  # before the last word: from then on there may be another question
        told.flush()


def verdict(schema: bytes, answers: list[str]) -> Iterator[bytes | str]:
    """Yield what is found of answers, as a byte, and then in words unless all of them fit."""
    try:
        validator = _validator(schema)
    except ValueError as error:
        yield UNUSABLE
        yield getattr(error, "message", str(error))[:_LONGEST_FINDING]
        return
    for number, answer in enumerate(answers):
        where = f"choice {number}: " if len(answers) > 1 else ""
        try:
            value = orjson.loads(answer)
        except orjson.JSONDecodeError as error:
            yield DOES_NOT_FIT
            yield f"{where}it is not JSON: {error}"[:LONGEST_WORDS]
            return
        if not validator.is_valid(value):
            yield DOES_NOT_FIT
            errors = islice(validator.iter_errors(value), _MOST_FINDINGS)
            yield (where + "; ".join(_in_words(error) for error in errors))[:LONGEST_WORDS]
            return
    yield FITS


@lru_cache(maxsize=64)
def _validator(schema: bytes) -> Any:
    # `offline`: what lies outside is not fetched. A format is a remark, as the standard has it.
    return jsonschema_rs.validator_for(
        orjson.loads(schema), offline=True, validate_formats=False, pattern_options=PATTERNS, mask="the value"
    )


def _in_words(error: jsonschema_rs.ValidationError) -> str:
    value = orjson.dumps(error.instance).decode()
    shown = value if len(value) <= _LONGEST_VALUE else value[:_LONGEST_VALUE] + "..."
    return f"{path(error.instance_path)} = {shown}: {error.message}"[:_LONGEST_FINDING]


def _limit(what: int, most: int) -> None:
    with suppress(OSError, ValueError):  # not every system has each of them
        resource.setrlimit(what, (most, resource.getrlimit(what)[1]))


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
