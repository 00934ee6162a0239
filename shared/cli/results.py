"""Results files: one line for each time a job ended, in the order that happened; JSON as it came, or CSV for people.

A file whose name ends in .csv is CSV. Either form is only ever appended to, or put into another order as a whole, which
keeps its size: what `resume` remembers of a file holds for both.
"""

import csv
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from shared.cli.client import CliError

Json = dict[str, Any]

COLUMNS = ("custom_id", "status", "output", "error", "cost_usd", "input_tokens", "output_tokens", "model")
LONGEST_FIELD = 2**30
_ENDED_WITHOUT_ANSWER = {"cancelled": "cancelled", "batch_cancelled": "cancelled", "batch_expired": "expired"}


@dataclass(frozen=True, slots=True)
class Record:
    """How a job ended. `error` is its code and message, '' where there is none; an unknown cost is ''."""

    custom_id: str
    status: str
    output: str = ""
    error: str = ""
    cost_usd: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    model: str = ""


def record(line: Json) -> Record:
    """Return what a result line of the gateway says."""
    cost = line["cost_usd"] or ""
    if error := line["error"]:
        status = _ENDED_WITHOUT_ANSWER.get(error["code"], "failed")
        return Record(line["custom_id"], status, error=f"{error['code']}: {error['message']}", cost_usd=cost)
    body = line["response"]["body"]
    usage = body.get("usage") or {}
    return Record(
        line["custom_id"],
        "completed",
        output=_output(body),
        cost_usd=cost,
        input_tokens=usage.get("prompt_tokens", usage.get("input_tokens")) or 0,
        output_tokens=usage.get("completion_tokens", usage.get("output_tokens")) or 0,
        model=body.get("model") or "",
    )


def _output(body: Json) -> str:
    """Return an answer's text; what has none is returned as JSON: tool calls, an embedding."""
    match body:
        case {"choices": [{"message": {"content": str(text), **more}}, *_]} if not more.get("tool_calls"):
            return text
        case {"choices": [{"message": dict(message)}, *_]}:
            return orjson.dumps(message).decode()
        case {"output": [*items]}:
            parts = [part for item in items if item.get("type") == "message" for part in item["content"]]
            texts = [part["text"] for part in parts if part.get("type") == "output_text"]
            return "".join(texts) or orjson.dumps(items).decode()
        case {"type": "message", "content": [*blocks]}:
            texts = [block["text"] for block in blocks if block.get("type") == "text"]
            return "".join(texts) or orjson.dumps(blocks).decode()
        case {"data": [{"embedding": list(numbers)}]}:
            return orjson.dumps(numbers).decode()
    return orjson.dumps(body).decode()


def is_csv(out: Path) -> bool:
    """Return whether a results file is CSV."""
    return out.suffix.lower() == ".csv"


def append(file: BinaryIO, lines: Iterable[Json], *, as_csv: bool = False) -> int:
    """Append result lines without their cursors, flush them to disk, and return the file's size."""
    if as_csv:
        rows = io.StringIO(newline="")
        writer = csv.writer(rows)
        if not file.tell():
            writer.writerow(COLUMNS)
        for line in lines:
            found = record(line)
            writer.writerow([getattr(found, column) for column in COLUMNS])
        file.write(rows.getvalue().encode())
    else:
        write_lines(file, lines)
    file.flush()
    os.fsync(file.fileno())
    return file.tell()


def write_lines(file: BinaryIO, lines: Iterable[Json]) -> None:
    """Write result lines as JSON, without their cursors."""
    for line in lines:
        file.write(orjson.dumps({name: value for name, value in line.items() if name != "cursor"}) + b"\n")


def read(out: Path) -> Iterator[Record]:
    """Yield what a results file holds."""
    with out.open("rb") as file:
        for _, raw in _pieces(file, as_csv=is_csv(out)):
            yield _row(raw) if is_csv(out) else record(orjson.loads(raw))


def put_in_order(out: Path, names: Iterable[str]) -> None:
    """Rewrite a results file in the order of these custom_ids, in one step. Several lines of one stay in their order.

    Only ids and places are held in memory, no contents.
    """
    as_csv = is_csv(out)
    rank = {name: number for number, name in enumerate(names)}
    with out.open("rb") as file:
        places: list[tuple[int, int, int]] = []
        for offset, raw in _pieces(file, as_csv=as_csv):
            name = _row(raw).custom_id if as_csv else orjson.loads(raw)["custom_id"]
            places.append((rank[name], offset, len(raw)))
        wanted = sorted(places)
        if wanted == places:
            return
        fresh = out.with_name(out.name + ".new")
        with fresh.open("wb") as ordered:
            file.seek(0)
            ordered.write(file.read(places[0][1]))  # the heading of CSV
            for _, offset, size in wanted:
                file.seek(offset)
                ordered.write(file.read(size))
            ordered.flush()
            os.fsync(ordered.fileno())
    fresh.replace(out)


def write_texts(out: Path, folder: Path, names: Iterable[str]) -> None:
    """Write the output of each job of these custom_ids, which are paths, to a file of that path and `.txt` in a folder.

    A job that was not completed has none. Raises CliError where one cannot be written.
    """
    known = frozenset(names)  # the gateway's answers name no file of their own
    for one in read(out):
        if one.status == "completed" and one.custom_id in known:
            path = folder / f"{one.custom_id}.txt"
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(one.output, encoding="utf-8")
            except OSError as error:
                raise CliError(f"{path} cannot be written: {error.strerror}; {out} has the answers") from error


def _pieces(file: BinaryIO, *, as_csv: bool) -> Iterator[tuple[int, bytes]]:
    """Yield each result with its offset. A row of CSV goes on over line breaks while a quote is open."""
    offset = file.tell()
    pending: list[bytes] = []
    quotes = 0
    for number, raw in enumerate(file):
        pending.append(raw)
        if as_csv:
            quotes += raw.count(b'"')
            if number == 0:
                offset += len(pending.pop())
                continue
            if quotes % 2:
                continue
        piece = b"".join(pending)
        yield offset, piece
        offset += len(piece)
        pending = []


def _row(raw: bytes) -> Record:
    csv.field_size_limit(LONGEST_FIELD)
    row = next(csv.reader(io.StringIO(raw.decode(), newline="")))
    custom_id, status, output, error, cost, taken, given, model = row
    return Record(custom_id, status, output, error, cost, int(taken), int(given), model)
