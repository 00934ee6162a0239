"""The rows of a CSV file as texts for a template. Its first row names the columns; one of them may be the custom_id.

Read strictly, as RFC 4180 has it (quoted line breaks, doubled quotes), in UTF-8 with or without a byte order mark,
between commas, semicolons or tabs: what is doubtful is a fault, never a guess.
"""

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shared.cli.client import CliError
from shared.cli.template import Text

DELIMITERS = (",", ";", "\t")
IDS = ("custom_id", "id")
LARGEST = 10 * 2**20
"""In bytes, of a line of the file; in characters, of a field."""


@dataclass(frozen=True, slots=True)
class Heading:
    """How a file's rows are cut, and the names of its columns; one without a name is ''."""

    delimiter: str
    columns: tuple[str, ...]


def heading(path: Path) -> Heading:
    """Return a file's heading: the delimiter is the one that makes the most columns of it. Raises CliError."""
    found = [Heading(delimiter, _columns(path, delimiter)) for delimiter in DELIMITERS]
    chosen = max(found, key=lambda one: len(one.columns))
    named = [name for name in chosen.columns if name]
    if not named:
        raise CliError(f"{path} has no first row that names its columns")
    if twice := [name for name, times in Counter(named).items() if times > 1]:
        raise CliError(f"{path} has more than one column {twice[0]!r}")
    return chosen


def texts(path: Path, head: Heading) -> Iterator[Text | str]:
    """Yield the rows below the heading, or what is wrong with one. Blank rows are no rows. Raises CliError."""
    of_id = next((head.columns.index(name) for name in IDS if name in head.columns), None)
    number = 0
    for last_line, fields in _rows(path, head.delimiter):
        if not fields:
            continue
        number += 1
        if number == 1:
            continue
        row = number - 1
        if len(fields) != len(head.columns):
            yield f"row {row} (to line {last_line}): has {len(fields)} fields, for {len(head.columns)} columns"
        elif of_id is not None and not fields[of_id]:
            yield f"row {row} (to line {last_line}): its {head.columns[of_id]} is empty"
        else:
            custom_id = f"row-{row}" if of_id is None else fields[of_id]
            yield Text(custom_id, {name: value for name, value in zip(head.columns, fields, strict=True) if name})


def _columns(path: Path, delimiter: str) -> tuple[str, ...]:
    first = next((fields for _, fields in _rows(path, delimiter) if fields), [])
    return tuple(name.strip() for name in first)


def _rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row with the number of the file's line it ends in."""
    csv.field_size_limit(LARGEST)
    reader = csv.reader(_lines(path), delimiter=delimiter, strict=True)
    try:
        for fields in reader:
            yield reader.line_num, fields
    except csv.Error as error:
        raise CliError(f"{path}, line {reader.line_num}: is not CSV: {error}") from None


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(LARGEST + 1):
            number += 1
            if len(raw) > LARGEST:
                raise CliError(f"{path}, line {number}: is larger than {LARGEST // 2**20} MB")
            try:
                yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise CliError(f"{path}, line {number}: is not UTF-8: save the file as UTF-8") from None
