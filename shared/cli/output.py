"""How the command line shows things: tables and facts for people, JSON for programs.

Text from outside is cleaned of control characters, so that no error message can drive a terminal.
"""

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

LONGEST = 800
"""In characters, of a message."""

AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


def as_json(value: object) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under headings; on a terminal they fold to its width, elsewhere nothing is cut."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(clean(cell)) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 10_000
    console.print(shown)


def facts(values: Mapping[str, object]) -> None:
    """Print names and values, one a line; None is left out."""
    width = max(len(name) for name in values) + 2
    for name, value in values.items():
        if value is not None:
            typer.echo(f"{name:<{width}}{clean(str(value))}")


def note(text: str) -> None:
    """Print a line beside the command's output, on standard error."""
    typer.echo(clean(text), err=True)


def brief(text: str) -> str:
    """Return text without its middle where it is longer than a person reads: one fault may be that of every line."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 60]} … {text[-57:]}"


def clean(text: str) -> str:
    """Return text without control characters other than line breaks and tabs."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")


def moment(value: Any) -> str:
    """Return a time (RFC 3339 text, or unix seconds) to the second in UTC; a dash where there is none."""
    if isinstance(value, int | float):
        value = datetime.fromtimestamp(value, UTC).isoformat()
    return value[:19].replace("T", " ") if isinstance(value, str) else "-"


def cost(value: object) -> str:
    """Return a cost in USD as the gateway gave it; a dash where it is unknown."""
    return f"${value}" if isinstance(value, str) else "-"
