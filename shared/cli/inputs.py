"""What `sluice submit` reads: JSON lines as they are; CSV and folders of texts turned into such lines by a prompt.

What is turned goes to a temporary file, line after line, before anything is sent. So all that follows reads one kind of
file, twice, which nobody can change meanwhile; the same input and prompt always give the same lines.
"""

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import orjson

from shared.cli import csv_rows, folder
from shared.cli.client import CliError
from shared.cli.output import note
from shared.cli.template import Template, Text, parse

STDIN = Path("-")
CSV = frozenset({".csv", ".tsv"})
MOST_FAULTS = 20


@dataclass(frozen=True, slots=True)
class Prompt:
    """How texts become requests: a template, a system message, a glob for a folder's files; None where not given."""

    template: str | None = field(default=None, repr=False)
    system: str | None = field(default=None, repr=False)
    glob: str | None = None


@dataclass(frozen=True, slots=True)
class Input:
    """JSON lines that can be read twice, and what each of them was: a `line`, a `row` or a `file`."""

    path: Path
    unit: str


@contextlib.contextmanager
def readable(source: Path, prompt: Prompt, *, out: Path) -> Iterator[Input]:
    """Yield what a file, `-` for standard input, or a folder holds, as lines. The results file `out` is not read.

    Raises CliError; every faulty row or file is told first.
    """
    if source != STDIN and not source.is_file() and not source.is_dir():
        raise CliError(f"{source} is not a file or a folder")
    if source != STDIN and source.is_dir():
        template = _template(prompt, folder.FIELDS, of="names in a folder")
        with _spool() as file:
            _write(file, folder.texts(source, glob=prompt.glob, out=out), template, prompt.system)
            yield Input(Path(file.name), "file")
        return
    if prompt.glob is not None:
        raise CliError("--glob chooses files of a folder")
    if source.suffix.lower() in CSV:
        head = csv_rows.heading(source)
        template = _template(prompt, [name for name in head.columns if name], of="columns")
        with _spool() as file:
            _write(file, csv_rows.texts(source, head), template, prompt.system)
            yield Input(Path(file.name), "row")
        return
    if prompt != Prompt():
        raise CliError("--prompt, --prompt-file and --system are for CSV files and folders; lines of JSON say it all")
    if source == STDIN:
        with _spool() as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
            file.flush()
            yield Input(Path(file.name), "line")
        return
    yield Input(source, "line")


def _spool() -> contextlib.AbstractContextManager[IO[bytes]]:
    return tempfile.NamedTemporaryFile(prefix="sluice-", suffix=".jsonl")


def _template(prompt: Prompt, names: Iterable[str], *, of: str) -> Template:
    known = tuple(names)
    if prompt.template is not None:
        template = parse(prompt.template)
        template.refuse_unknown(known, what=of)
        return template
    if "prompt" in known:
        return Template((("", "prompt"),))
    shown = ", ".join(f"{{{name}}}" for name in known)
    raise CliError(
        f"no prompt says what to do: give --prompt, with {shown} for the {of}, "
        f"as in --prompt 'Summarize: {{{'text' if 'text' in known else known[0]}}}'"
    )


def _write(file: IO[bytes], texts: Iterable[Text | str], template: Template, system: str | None) -> None:
    """Write a line for each text. Raises CliError where there was a fault, once they are told."""
    begin = [] if system is None else [{"role": "system", "content": system}]
    faults = 0
    for text in texts:
        if isinstance(text, str):
            faults += 1
            if faults <= MOST_FAULTS:
                note(text)
        elif not faults:
            messages = [*begin, {"role": "user", "content": template.fill(text.values)}]
            line = {"custom_id": text.custom_id, "body": {"messages": messages}}
            file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
    if faults > MOST_FAULTS:
        note(f"… and {faults - MOST_FAULTS:,} more")
    if faults:
        raise CliError("nothing was sent: correct the faults above")
    file.flush()
