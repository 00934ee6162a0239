"""What a submission remembers beside its results file, so that an interrupted run goes on where it was.

The order of writing is the whole of it: result lines are flushed to disk first, and only then does the state move its
cursors and the number of bytes that count. A run that begins cuts the results file back to that number, so a line
that was torn, or written just before the state was, is fetched again and appears once.
"""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import orjson

from shared.cli.client import CliError


@dataclass(frozen=True, slots=True)
class Part:
    """A batch that was submitted, one chunk of the file; `cursor` is that of its last result that is written."""

    batch_id: str
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class State:
    """A submission's standing: its batches in the file's order, and how many bytes of the results file count.

    `again` is a text of its own for lines that are submitted although they were before, '' elsewhere.
    """

    digest: str
    parts: tuple[Part, ...] = ()
    size: int = 0
    again: str = ""

    def submitted(self, batch_id: str) -> "State":
        """Return the state after one more chunk was accepted."""
        return replace(self, parts=(*self.parts, Part(batch_id)))

    def wrote(self, index: int, *, cursor: str, size: int) -> "State":
        """Return the state after results of part `index` up to `cursor` were flushed and the file has `size` bytes."""
        moved = Part(self.parts[index].batch_id, cursor)
        return replace(self, parts=(*self.parts[:index], moved, *self.parts[index + 1 :]), size=size)

    def rewound(self) -> "State":
        """Return the state with the same batches and no result written."""
        return replace(self, parts=tuple(Part(part.batch_id) for part in self.parts), size=0)


def state_path(out: Path) -> Path:
    """Return where the state of a results file is kept."""
    return out.with_name(out.name + ".state.json")


def load(path: Path) -> State | None:
    """Return the saved state, None where there is none. Raises CliError where it cannot be read."""
    try:
        saved = orjson.loads(path.read_bytes())
        return State(**{**saved, "parts": tuple(Part(**part) for part in saved["parts"])})
    except FileNotFoundError:
        return None
    except (orjson.JSONDecodeError, KeyError, TypeError, OSError) as error:
        raise CliError(f"{path} cannot be read as a submission's state ({error}): delete it to begin anew") from error


def save(path: Path, state: State) -> None:
    """Replace the saved state in one step, on disk."""
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        file.write(orjson.dumps(state, option=orjson.OPT_INDENT_2))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


@contextlib.contextmanager
def opened(out: Path, digest: str, *, again: bool = False) -> Iterator[tuple[BinaryIO, State]]:
    """Open a results file for appending; yields it with the state to go on from, a new one where there was none.

    What the state does not count is cut off; a file that lost bytes which counted is fetched anew from its beginning.
    With `again` a new state submits what was submitted before a second time. Raises CliError where the file is of
    another submission, or another run writes it at this moment. Where nothing was submitted no empty file stays.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CliError(f"another run is writing {out}") from error
        try:
            state = _begun(out, digest, size=file.tell(), again=again)
            file.truncate(state.size)
            file.seek(state.size)
            yield file, state
        finally:
            saved = load(state_path(out))
            if not (saved and saved.parts) and not os.fstat(file.fileno()).st_size:
                out.unlink()


def _begun(out: Path, digest: str, *, size: int, again: bool) -> State:
    """Return the state to go on from with a results file of `size` bytes. Raises CliError."""
    state = load(state_path(out))
    if state is None:
        if size:
            raise CliError(f"{out} already exists: name another file with --out, or delete it")
        state = State(digest, again=secrets.token_hex(4) if again else "")
        if again:  # saved before the first batch is sent, so that no interruption makes it another submission
            save(state_path(out), state)
    elif state.digest != digest:
        raise CliError(
            f"{out} holds the results of other lines or options: name another file with --out, "
            f"or delete it and {state_path(out)}"
        )
    elif again and not state.again:
        raise CliError(f"{out} holds the results of these lines: name another file with --out to submit them again")
    return state.rewound() if size < state.size else state
