"""Child processes under asyncio: started, watched, restarted, stopped, and never left behind.

A child lives in a session of its own, so that a terminal's Ctrl-C reaches only the parent, and on Linux it is sent a
signal when the parent dies, however that happens. That signal comes when the *thread* that started the child ends:
start children from the main thread's event loop. What the children are is not known here.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import structlog

from shared.errors import SluiceError

log = structlog.get_logger(__name__)

LAUNCH = Path(__file__).with_name("launch.py")
START_SECONDS = 30.0
FIRST_DELAY = 0.5
LONGEST_DELAY = 10.0
STEADY_SECONDS = 30.0
"""A child that stayed up for so long is restarted with the first delay again."""
LARGEST_LOG = 8 * 2**20
"""A log file that is larger, in bytes, when its child starts is begun anew."""


class ChildFailed(SluiceError):
    """A child that ended or was not ready in time; the message ends with the last lines of its log."""


class InUse(SluiceError):
    """A lock that another process holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """How a child is run.

    `argv` begins with a path. `env` replaces ours. `user` is (uid, gid) and needs root. Output goes to the file `log`,
    or where ours goes.
    `stop_signal` asks it to end, `grace` is how many seconds it may take; `orphan_signal` is sent when we die.
    `ready` returns once the child can be used. `lock` is a file the child and all it forks hold locked while any of
    them lives: a start waits for it, then removes the files in `stale`, which nobody can be using any more.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] | None = field(default=None, repr=False)
    user: tuple[int, int] | None = None
    log: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    orphan_signal: signal.Signals = signal.SIGKILL
    grace: float = 10.0
    ready: Callable[[], Awaitable[None]] | None = None
    lock: Path | None = None
    stale: tuple[Path, ...] = ()


class Child:
    """One child process at a time, made by `spec`; it may be started again after it ended."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self._process: Process | None = None

    @property
    def pid(self) -> int | None:
        """The running process, None where there is none."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        """Start it and wait until it is ready. Does nothing where it runs already.

        Raises ChildFailed where it ends first or is not ready within `START_SECONDS`, InUse where an earlier process
        still holds its lock after as long.
        """
        if self.pid is not None:
            return
        spec = self.spec
        held = await hold(spec.lock, seconds=START_SECONDS) if spec.lock else None
        try:
            for path in spec.stale:
                path.unlink(missing_ok=True)
            with _output(spec.log) as output:
                self._process = await asyncio.create_subprocess_exec(
                    *_launched(spec.argv, spec.user, orphan_signal=spec.orphan_signal),
                    stdin=DEVNULL,
                    stdout=output,
                    stderr=output and STDOUT,
                    env=spec.env,
                    start_new_session=True,
                    pass_fds=() if held is None else (held,),
                )
        finally:
            if held is not None:
                os.close(held)
        if spec.ready is not None:
            await self._until_ready(self._process, spec.ready())
        log.info("child.started", child=spec.name, pid=self._process.pid)

    async def _until_ready(self, process: Process, ready: Awaitable[None]) -> None:
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(ready), asyncio.ensure_future(process.wait())]
        try:
            await asyncio.wait(waits, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if waits[0].done():
                await waits[0]
                return
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        code = process.returncode
        await self.kill()
        what = f"was not ready within {START_SECONDS:.0f} s" if code is None else f"ended with code {code} at its start"
        raise ChildFailed(f"{self.spec.name} {what}{_last_lines(self.spec.log)}")

    async def exited(self) -> int | None:
        """Wait until it has ended; return its exit code (negative: the signal), None where it was never started."""
        return None if self._process is None else await self._process.wait()

    async def stop(self) -> None:
        """Send the stop signal, and SIGKILL to its whole process group where it still runs after its grace."""
        if self._process is None or self.pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, self.spec.stop_signal)
        try:
            await asyncio.wait_for(self._process.wait(), self.spec.grace)
        except TimeoutError:
            log.warning("child.killed", child=self.spec.name, grace=self.spec.grace)
            await self.kill()

    async def kill(self) -> None:
        """Send SIGKILL to its whole process group and wait until it is gone."""
        if self._process is not None and self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()


async def supervise(*floors: Sequence[Child]) -> None:
    """Start the children, floor after floor, and keep them running until cancelled.

    A child that ends is started again, after 0.5 s at first and up to 10 s where it keeps ending. When cancelled, or
    when a first start fails, floors are stopped in reverse order, the children of one floor together. Children that
    run already are only watched.
    """
    try:
        for floor in floors:
            for child in floor:
                await child.start()
        async with asyncio.TaskGroup() as keepers:
            for floor in floors:
                for child in floor:
                    keepers.create_task(_keep(child))
    finally:
        for floor in reversed(floors):
            await asyncio.gather(*(child.stop() for child in reversed(floor)))


async def _keep(child: Child) -> None:
    delay = FIRST_DELAY
    while True:
        started = time.monotonic()
        code = await child.exited()
        if time.monotonic() - started > STEADY_SECONDS:
            delay = FIRST_DELAY
        log.warning("child.exited", child=child.spec.name, code=code, restart_in=delay)
        await asyncio.sleep(delay)
        delay = min(2 * delay, LONGEST_DELAY)
        try:
            await child.start()
        except (SluiceError, OSError) as error:
            log.error("child.start_failed", child=child.spec.name, error=str(error))


async def run(
    argv: Sequence[str], *, user: tuple[int, int] | None = None, stdin: str = "", seconds: float = START_SECONDS
) -> tuple[int, str]:
    """Run a short-lived program in a clean environment to its end; return its exit code and what it printed.

    Raises TimeoutError where it takes longer than `seconds`; it is killed then.
    """
    process = await asyncio.create_subprocess_exec(
        *_launched(argv, user, orphan_signal=signal.SIGKILL),
        stdin=PIPE,
        stdout=PIPE,
        stderr=STDOUT,
        env=clean_environment(),
        start_new_session=True,
    )
    try:
        printed, _ = await asyncio.wait_for(process.communicate(stdin.encode()), seconds)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return process.returncode or 0, printed.decode(errors="replace")


async def hold(path: Path, *, seconds: float) -> int:
    """Open and lock a file, waiting up to `seconds`; return the descriptor, whose closing gives the lock back.

    The lock is the open file's: whoever inherits the descriptor holds it too. Raises InUse.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + seconds
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise InUse(f"{path} is locked by another process") from None
                await asyncio.sleep(0.02)
            else:
                return descriptor
    except BaseException:
        os.close(descriptor)
        raise


def clean_environment() -> dict[str, str]:
    """Return an environment without the caller's `PG…`, locale and secrets."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _launched(argv: Sequence[str], user: tuple[int, int] | None, *, orphan_signal: signal.Signals) -> list[str]:
    who = "" if user is None else f"{user[0]}:{user[1]}"
    return [sys.executable, "-I", "-S", str(LAUNCH), str(int(orphan_signal)), str(os.getpid()), who, *argv]


def _output(path: Path | None) -> contextlib.AbstractContextManager[IO[bytes] | None]:
    if path is None:
        return contextlib.nullcontext()
    return path.open("wb" if path.exists() and path.stat().st_size > LARGEST_LOG else "ab")


def _last_lines(path: Path | None) -> str:
    if path is None:
        return ""
    lines = path.read_bytes()[-4096:].decode(errors="replace").splitlines()[-10:]
    return "\n".join([f"; {path} ends with:", *lines])
