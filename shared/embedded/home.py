"""The directory an embedded server lives in, and who owns it. What the servers keep there is theirs.

`<data>/<name>.lock` is held by whoever runs the server; everything else of the server is in `<data>/<name>/`. Postgres
will not run as root; where root runs Sluice, only what Postgres writes belongs to an unprivileged user, and where that
user cannot get through to it, `<data>/<name>` is a link to a directory beneath `/var/lib/sluice`: no parent
directory's permissions are ever opened.
"""

import contextlib
import hashlib
import os
import pwd
import re
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from shared.embedded import children
from shared.errors import SluiceError

log = structlog.get_logger(__name__)

ELSEWHERE = Path("/var/lib/sluice")
_SOCKET_PATH = re.compile(r"[\w./-]{1,100}", re.ASCII)
"""Every system takes 100 bytes; clients take a host apart at commas and colons, and a plus in a query is a space."""


@dataclass(frozen=True, slots=True)
class Home:
    """A server's directory, resolved, and the (uid, gid) the server runs as; `user` is None where they are our own."""

    directory: Path
    user: tuple[int, int] | None

    def give(self, path: Path) -> None:
        """Make the server's user the owner of a file or directory."""
        if self.user is not None:
            os.chown(path, *self.user, follow_symlinks=False)

    def made(self, name: str) -> Path:
        """Return the directory `name`, made for the server's user alone where it is missing."""
        path = self.directory / name
        if not path.exists():
            path.mkdir(mode=0o700)
            self.give(path)
        return path

    def sockets(self, name: str) -> Path:
        """Return an existing directory where a socket called `name` can be made and only the server's user gets in.

        It is in the home, or, where that is no path for a socket, under the system's temporary directory. The path
        needs no quoting in a URL. Raises SluiceError where somebody else has taken that place.
        """
        key = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:16]
        places = (self.directory / "sockets", Path(tempfile.gettempdir()) / f"sluice-{key}")
        fitting = (place for place in places if _SOCKET_PATH.fullmatch(str(place / name)))
        here = next(fitting, Path("/tmp") / f"sluice-{key}")  # noqa: S108
        try:
            here.mkdir(mode=0o700)
            self.give(here)
        except FileExistsError:
            found = here.lstat()
            owners = {os.geteuid()} if self.user is None else {0, self.user[0]}
            if not stat.S_ISDIR(found.st_mode) or found.st_uid not in owners or found.st_mode & 0o077:
                raise SluiceError(f"{here} is not a directory of ours with mode 0700; remove it") from None
        return here


@asynccontextmanager
async def occupied(data: Path, name: str, *, unprivileged: bool) -> AsyncIterator[Home]:
    """Hold the home of the server `name` beneath the data directory, made where it is missing.

    `unprivileged`: where we are root, the server runs as another user. Raises InUse where another process holds it,
    SluiceError where it cannot be used.
    """
    place = _place(data, name)
    try:
        held = await children.hold(place.with_name(f"{name}.lock"), seconds=0)
    except children.InUse:
        raise children.InUse(
            f"{place} is in use by another Sluice; stop that one, or choose another SLUICE_DATA_DIR"
        ) from None
    try:
        if unprivileged and os.geteuid() == 0:
            home = _shared(place)
            yield home if await _reached(home) else _elsewhere(place, home)
        else:
            yield Home(_made(place), None)
    finally:
        os.close(held)


def _place(data: Path, name: str) -> Path:
    data.mkdir(parents=True, exist_ok=True)
    return data.resolve() / name


def _made(place: Path) -> Path:
    if place.is_symlink() and not place.exists():
        raise SluiceError(f"{place} is a link to {place.readlink()}, which is gone; remove the link to begin anew")
    place.mkdir(mode=0o700, exist_ok=True)
    return place.resolve()


def _shared(place: Path) -> Home:
    """Return a home whose server runs as the owner of the data that is there, or as the user found for new data."""
    new = not place.exists()
    directory = _made(place)
    if new:
        directory.chmod(0o711)
    data = directory / "data"
    if data.exists():
        return Home(directory, (data.stat().st_uid, data.stat().st_gid))
    return Home(directory, _unprivileged_user())


def _unprivileged_user() -> tuple[int, int]:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
    raise SluiceError("Postgres does not run as root, and there is neither a user postgres nor nobody to run it as")


async def _reached(home: Home) -> bool:
    code, _ = await children.run([shutil.which("test") or "/bin/test", "-x", str(home.directory)], user=home.user)
    return code == 0


def _elsewhere(place: Path, unreached: Home) -> Home:
    try:
        place.rmdir()
    except OSError as error:
        raise SluiceError(f"user {unreached.user} cannot reach {place}, which holds data already; move it") from error
    ELSEWHERE.mkdir(exist_ok=True)
    ELSEWHERE.chmod(0o755)
    home = Home(Path(tempfile.mkdtemp(prefix=f"{place.name}-", dir=ELSEWHERE)), unreached.user)
    home.directory.chmod(0o711)
    place.symlink_to(home.directory)
    log.warning("home.elsewhere", wanted=str(place), used=str(home.directory), reason="its parents are closed")
    return home
