"""The text files in a folder, at any depth, as texts for a template; the custom_id is the path from the folder."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from shared.cli.client import CliError
from shared.cli.template import Text

FIELDS = ("text", "name", "path")
SUFFIXES = frozenset({".txt", ".md", ".markdown", ".rst"})
LARGEST = 10 * 2**20
LONGEST_PATH = 512
"""In characters, as of any custom_id."""


def texts(folder: Path, *, glob: str | None = None, out: Path | None = None) -> Iterator[Text | str]:
    """Yield the files in the order of their paths, or what is wrong with one. Raises CliError where there is none.

    `glob` chooses them, matched against the end of the path; else their suffix does. What begins with a dot is not
    read, nor what belongs to the results file `out`; links to folders are not followed.
    """
    chosen = sorted(_paths(folder, glob, out))
    if not chosen:
        kinds = glob or " ".join(sorted(f"*{suffix}" for suffix in SUFFIXES))
        raise CliError(f"{folder} has no file that fits {kinds}: choose others with --glob")
    for path in chosen:
        found = _text(folder, path)
        yield f"{printable(path)}: {found}" if isinstance(found, str) else found


def printable(path: str) -> str:
    """Return a path that can be printed: bytes of its name that are no UTF-8 are shown as escapes."""
    return path.encode("utf-8", "backslashreplace").decode()


def _paths(folder: Path, glob: str | None, out: Path | None) -> Iterator[str]:
    own = None if out is None else out.resolve()
    for directory, directories, files in os.walk(folder, onerror=_refuse):
        directories[:] = [name for name in directories if not name.startswith(".")]
        here = Path(directory)
        for name in files:
            path = PurePosixPath((here / name).relative_to(folder))
            fits = path.match(glob) if glob else path.suffix.lower() in SUFFIXES
            ours = own is not None and name.startswith(own.name) and here.resolve() == own.parent
            if fits and not ours and not name.startswith("."):
                yield str(path)


def _refuse(error: OSError) -> None:
    raise CliError(f"{error.filename} cannot be read: {error.strerror}")


def _text(folder: Path, path: str) -> Text | str:
    try:
        path.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if len(path) > LONGEST_PATH:
        return f"its path is longer than {LONGEST_PATH} characters"
    try:
        if not (folder / path).is_file():
            return "is not a file"
        with (folder / path).open("rb") as file:
            raw = file.read(LARGEST + 1)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if len(raw) > LARGEST:
        return f"is larger than {LARGEST // 2**20} MB"
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        return f"is not UTF-8 (line {line})"
    if "\0" in text:
        return "contains a NUL character"
    return Text(path, {"text": text, "name": PurePosixPath(path).name, "path": path})
