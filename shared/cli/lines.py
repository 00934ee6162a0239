"""What a submitted file holds: its lines read as batch requests, every fault with its line number, cut into calls.

The same bytes and options always give the same chunks, so a chunk's Idempotency-Key names its content and a repeated
run repeats nothing. Not here: sending (`submission`).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from shared.errors import Fault
from shared.schemas import DEFAULT_ROUTE, JobRequest, body_faults, faults_of, null_characters

Json = dict[str, Any]

CHUNK_LINES = 10_000
CHUNK_BYTES = 16 * 2**20
LARGEST_LINE = 60 * 2**20
MOST_FAULTS = 10
NANO = Decimal("1e-9")
OPTIONS = frozenset(JobRequest.model_fields) - {"body"}
"""What a line says of its job; all else of a bare line is its body."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the command line adds to lines that do not say it themselves; `max_cost`, in USD, is of all together.

    `deadline` is in seconds from when a line is accepted, `schema` what OpenAI calls `json_schema`: name and schema.
    """

    model: str | None = None
    priority: str | None = None
    max_tokens: int | None = None
    schema: Json | None = field(default=None, repr=False)
    deadline: float | None = None
    max_cost: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """The lines of one call: where they begin in the file, the first one's number, how many."""

    offset: int
    first: int
    lines: int


@dataclass(frozen=True, slots=True)
class Survey:
    """What a file is: a digest of its content and defaults, its chunks, and the faults that keep it from being sent."""

    digest: str
    chunks: tuple[Chunk, ...]
    faults: tuple[str, ...]

    @property
    def lines(self) -> int:
        """Requests in the file."""
        return sum(chunk.lines for chunk in self.chunks)

    def share(self, chunk: Chunk, amount: Decimal) -> Decimal:
        """Return a chunk's part of an amount, by its number of lines; the parts are never more than the whole."""
        return (amount * chunk.lines / self.lines).quantize(NANO, ROUND_FLOOR)


def survey(path: Path, defaults: Defaults, *, unit: str = "line") -> Survey:
    """Read a file once, line by line, without sending anything. Faults beyond the first ten are only counted.

    `unit` is what the faults call a line.
    """
    digest = hashlib.sha256(orjson.dumps([2, defaults], default=str, option=orjson.OPT_SORT_KEYS))
    chunks: list[Chunk] = []
    faults: list[str] = []
    hidden = 0
    ids: dict[str, int] = {}
    size, waits = 0, False
    added = len(orjson.dumps(defaults.schema)) if defaults.schema else 0
    for number, offset, raw in _numbered(path):
        digest.update(b"%d %b\n" % (number, raw.strip()))
        line = request(raw, number, defaults)
        found = _faults(line, raw, number, ids, unit)
        room = MOST_FAULTS - len(faults)
        faults += [f"{unit} {number}: {fault}" for fault in found[:room]]
        hidden += len(found[room:])
        waits = waits or (isinstance(line, dict) and "depends_on" in line)
        last = chunks[-1] if chunks else None
        size += len(raw) + added
        if last is None or last.lines >= CHUNK_LINES or size > CHUNK_BYTES:
            chunks.append(Chunk(offset, number, 1))
            size = len(raw) + added
        else:
            chunks[-1] = Chunk(last.offset, last.first, last.lines + 1)
    if waits and len(chunks) > 1:
        faults.append(
            f"lines with depends_on go in one call, of {CHUNK_LINES:,} lines and {CHUNK_BYTES >> 20} MiB at most: "
            "upload a file of OpenAI batch lines with `sluice files upload`, and make a batch of it with "
            "`sluice batches create`"
        )
    if hidden:
        faults.append(f"… and {hidden:,} more")
    if not chunks:
        faults.append("there is no request in it")
    return Survey(digest.hexdigest(), tuple(chunks), tuple(faults))


def chunk_body(path: Path, chunk: Chunk, defaults: Defaults, *, max_cost: Decimal | None = None) -> bytes:
    """Return the body of the `POST /v1/batches` call that sends a chunk of a file without faults.

    `max_cost` is what the chunk may cost, in USD.
    """
    requests = []
    for number, _, raw in _numbered(path, chunk.offset, chunk.first):
        requests.append(request(raw, number, defaults))
        if len(requests) == chunk.lines:
            break
    bound = {} if max_cost is None else {"max_cost_usd": f"{max_cost:f}"}
    return orjson.dumps({"requests": requests, **bound})


def custom_ids(path: Path, defaults: Defaults) -> Iterator[str]:
    """Yield the custom_ids of a file without faults, in its order."""
    for number, _, raw in _numbered(path):
        line = request(raw, number, defaults)
        if isinstance(line, dict):
            yield line["custom_id"]


def request(raw: bytes, number: int, defaults: Defaults) -> Json | str:
    """Return a line as a batch request, or what keeps it from being one.

    Three forms are read: OpenAI's batch line (`custom_id`, `url`, `body` and a job's options); a bare body, known by
    its `messages` or `input`; and `{"prompt": "…"}`, a single user message, with at most a `model`. A bare form may
    carry a job's options too.
    """
    try:
        line = orjson.loads(raw)
    except (orjson.JSONDecodeError, RecursionError) as error:
        return f"is not JSON: {error}"
    if not isinstance(line, dict):
        return "is not a JSON object"
    if "body" not in line:
        bare = _bare(line)
        if isinstance(bare, str):
            return bare
        line = bare
    options = {"priority": defaults.priority, "deadline": defaults.deadline}
    line = {**{name: value for name, value in options.items() if value}, **line}
    if isinstance(line["body"], dict):
        line["body"] = _filled(line["body"], line.get("url", DEFAULT_ROUTE), defaults)
    return {**line, "custom_id": line.get("custom_id") or f"line-{number}"}


def _filled(body: Json, url: object, defaults: Defaults) -> Json:
    added: Json = {"model": defaults.model} if defaults.model else {}
    match url:
        case "/v1/chat/completions":
            if defaults.max_tokens and "max_tokens" not in body:
                added["max_completion_tokens"] = defaults.max_tokens
            if defaults.schema:
                added["response_format"] = {"type": "json_schema", "json_schema": defaults.schema}
        case "/v1/responses":
            if defaults.max_tokens:
                added["max_output_tokens"] = defaults.max_tokens
            if defaults.schema:
                added["text"] = {"format": {"type": "json_schema", **defaults.schema}}
    return {**added, **body}


def _bare(line: Json) -> Json | str:
    options = {name: value for name, value in line.items() if name in OPTIONS}
    body = {name: value for name, value in line.items() if name not in OPTIONS}
    if "messages" in body:
        return {**options, "body": body}
    if "input" in body:
        return {"url": "/v1/embeddings", **options, "body": body}
    if "prompt" not in body:
        return "has none of `body`, `messages`, `input` and `prompt`"
    prompt = body.pop("prompt")
    if not isinstance(prompt, str):
        return "`prompt` must be a string"
    if unknown := sorted(body.keys() - {"model"}):
        named = ", ".join(f"`{name}`" for name in unknown[:MOST_FAULTS])
        return f"{named} cannot stand beside `prompt`: it is no option of a job; a body with it needs `messages`"
    return {**options, "body": {**body, "messages": [{"role": "user", "content": prompt}]}}


def _faults(line: Json | str, raw: bytes, number: int, ids: dict[str, int], unit: str) -> list[str]:
    if isinstance(line, str):
        return [line]
    faults = [*_schema_faults(line), *null_characters(line)]
    found = [f"{fault.param}: {fault.message}" for fault in faults]
    if not isinstance(line["body"], dict) or "model" not in line["body"]:
        found = [text for text in found if not text.startswith("body.model:")]
        where = "in the line's body, or for all lines " if unit == "line" else ""
        found.append(f"no model: name one {where}with --model")
    if len(raw) > LARGEST_LINE:
        found.append(f"is larger than {LARGEST_LINE // 2**20} MB")
    name = line["custom_id"]
    if isinstance(name, str) and ids.setdefault(name, number) != number:
        found.append(f"custom_id {name!r} is already that of {unit} {ids[name]}")
    return found


def _schema_faults(line: Json) -> list[Fault]:
    try:
        job = JobRequest.model_validate(line)
    except ValidationError as error:
        return faults_of(error)
    return body_faults(job.url, job.body)


def _numbered(path: Path, offset: int = 0, first: int = 1) -> Iterator[tuple[int, int, bytes]]:
    """Yield (line number, offset, bytes) of the lines that are not blank, from an offset that begins line `first`."""
    with path.open("rb") as file:
        file.seek(offset)
        for number, raw in enumerate(file, first):
            if raw.strip():
                yield number, offset, raw
            offset += len(raw)
