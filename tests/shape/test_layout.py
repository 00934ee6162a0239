"""The shape that `ls` and the documents promise: sizes, names, and that what is named exists."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway_api.routes import ROUTES

ROOT = Path(__file__).parents[2]
PACKAGES = ("gateway_api", "workers", "shared")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
DOCUMENTS = sorted([ROOT / "ARCHITECTURE.md", *(ROOT / "docs").rglob("*.md")])

LONGEST_FILE = 300
# Words that fit everything say nothing.
EMPTY_WORDS = {"util", "helper", "common", "manager", "service", "base", "misc", "data", "info", "process"}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
# A path below the root, as a document names it.
_PATH = re.compile(r"`((?:gateway_api|workers|shared|tests|bench|docs|deploy|examples)/[\w./-]*)`")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def words(name: str) -> set[str]:
    found = {word.lower() for word in _WORD.findall(name)}
    return found | {word.removesuffix("s") for word in found} | {word.removesuffix("es") for word in found}


def names(path: Path) -> Iterator[str]:
    """Yield the names of a module and of its functions and classes."""
    yield path.parent.name if path.stem == "__init__" else path.stem
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


def test_there_is_something_to_look_at() -> None:
    assert len(SOURCES) > 50
    assert len(DOCUMENTS) > 3


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_file_is_one_noun_long_and_its_names_say_something(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_FILE
    assert [name for name in names(path) if words(name) & EMPTY_WORDS] == []


def test_the_check_of_names_knows_what_it_looks_for() -> None:
    for name in ("BaseModel", "json_utils", "processes", "HTTPService", "_data", "job_info"):
        assert words(name) & EMPTY_WORDS, name
    for name in ("database", "metadata", "informed", "HttpResponse", "based_on_nothing"):
        assert not words(name) & EMPTY_WORDS, name


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_what_a_document_names_exists(path: Path) -> None:
    named = _PATH.findall(path.read_text())
    assert [one for one in named if not (ROOT / one).exists()] == []


def test_decisions_are_numbered_without_gaps_and_say_what_enforces_them() -> None:
    pages = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        assert page.read_text().startswith(f"# {int(page.name[:4])}. "), page.name
        assert "**Enforced by**" in page.read_text(), page.name


def test_every_route_says_what_it_is() -> None:
    assert len(ROUTES) > 10
    for route in ROUTES:
        assert route.handler.__doc__, route.path
        assert f"{route.method} {route.path}".partition("{")[0] in route.handler.__doc__, route.path
