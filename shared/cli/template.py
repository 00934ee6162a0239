"""Prompt templates: text in which `{name}` stands for a value. Nothing is ever evaluated.

A name is any text without braces, taken as it is: no attributes, no indexes, no formats. `{{` and `}}` are single
braces. Values are not looked into, so braces in them stay what they are.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from shared.cli.client import CliError

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")


@dataclass(frozen=True, slots=True)
class Text:
    """What a template is filled with for one request: the request's custom_id, and a value for each name."""

    custom_id: str
    values: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Template:
    """A template's pieces in order: (text, None), or ('', the name whose value stands there)."""

    pieces: tuple[tuple[str, str | None], ...]

    def fill(self, values: Mapping[str, str]) -> str:
        """Return the text with its values, which must have every name."""
        return "".join(text if name is None else values[name] for text, name in self.pieces)

    def refuse_unknown(self, known: Collection[str], *, what: str) -> None:
        """Raise CliError where a name is not known; it lists those that are, which are `what`."""
        for _, name in self.pieces:
            if name is not None and name not in known:
                names = ", ".join(f"{{{one}}}" for one in known)
                raise CliError(f"the prompt asks for {{{name}}}, but the {what} are {names} (write a brace as {{{{)")


def parse(text: str) -> Template:
    """Read a template. Raises CliError where a brace stands alone."""
    pieces: list[tuple[str, str | None]] = []
    for found in _PIECE.finditer(text):
        match found[0]:
            case "{{" | "}}" as doubled:
                pieces.append((doubled[0], None))
            case "{" | "}" as alone:
                near = text[max(0, found.start() - 20) : found.end() + 20]
                raise CliError(f"the prompt has a {alone} that stands alone, at {near!r}: double it if it is text")
            case plain:
                pieces.append((plain, None) if found[1] is None else ("", found[1].strip()))
    return Template(tuple(pieces))
