"""The options of `sluice submit` read into what the rest works with; each fault says which option it is of."""

import re
from decimal import Decimal
from pathlib import Path

import orjson
from pydantic import TypeAdapter, ValidationError

from shared.cli.client import CliError
from shared.cli.inputs import STDIN, Prompt
from shared.cli.lines import Defaults, Json
from shared.config_values import seconds
from shared.schemas import Dollars

LARGEST = 2**20
RESULTS = "results.jsonl"
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_-]+")


def places(source: Path, out: str | None) -> tuple[Path, Path | None]:
    """Return the results file, and the folder of the answers' texts where `out` is a folder. Raises CliError."""
    if out is None:
        name = source.resolve().name if source.is_dir() else source.stem
        return Path(RESULTS if source == STDIN else f"{name}.{RESULTS}"), None
    if not out.endswith("/") and not Path(out).is_dir():
        return Path(out), None
    if not source.is_dir():
        raise CliError(f"--out {out} is a folder, which is for the texts of a folder: name a file")
    if Path(out).resolve().is_relative_to(source.resolve()):
        raise CliError(f"--out {out} is in the folder that is submitted, and would be read next time: name another")
    return Path(out) / RESULTS, Path(out)


def prompt(text: str | None, file: Path | None, *, system: str | None, glob: str | None) -> Prompt:
    r"""Return how texts become requests. Raises CliError.

    In `text` and `system` `\n` is a line break, which is hard to type in a shell.
    """
    if text is not None and file is not None:
        raise CliError("choose one of --prompt and --prompt-file")
    template = None if text is None else _unescaped(text)
    if file is not None:
        template = _content(file, "--prompt-file").removesuffix("\n")
    if system is not None:
        system = _content(Path(system[1:]), "--system") if system.startswith("@") else _unescaped(system)
    return Prompt(template, system, glob)


def defaults(
    *,
    model: str | None,
    priority: str | None,
    max_tokens: int | None,
    schema: Path | None,
    deadline: str | None,
    max_cost: str | None,
) -> Defaults:
    """Return what is added to lines. Raises CliError."""
    return Defaults(
        model,
        priority,
        max_tokens=max_tokens,
        schema=None if schema is None else _schema(schema),
        deadline=None if deadline is None else _deadline(deadline),
        max_cost=None if max_cost is None else _dollars(max_cost),
    )


def _unescaped(text: str) -> str:
    return text.replace("\\n", "\n")


def _content(path: Path, option: str) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
        if len(raw) > LARGEST:
            raise CliError(f"{option}: {path} is larger than {LARGEST // 2**20} MB")
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise CliError(f"{option}: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CliError(f"{option}: {path} is not UTF-8") from None


def _schema(path: Path) -> Json:
    """Return a schema with a name: a file has the bare schema, or what OpenAI calls `json_schema`, with its own."""
    try:
        found = orjson.loads(_content(path, "--schema"))
    except orjson.JSONDecodeError as error:
        raise CliError(f"--schema: {path} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise CliError(f"--schema: {path} is not a JSON object")
    if isinstance(found.get("name"), str) and isinstance(found.get("schema"), dict):
        return found
    return {"name": _NOT_IN_A_NAME.sub("_", path.stem)[:64] or "answer", "schema": found}


def _deadline(text: str) -> float:
    try:
        found = seconds(text)
    except ValueError as error:
        raise CliError(f"--deadline {error}") from None
    assert isinstance(found, float)
    if not found:
        raise CliError("--deadline must be more than 0")
    return found


def _dollars(text: str) -> Decimal:
    try:
        amount: Decimal = TypeAdapter(Dollars).validate_python(text)
    except ValidationError as error:
        raise CliError(f"--max-cost {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    return amount
