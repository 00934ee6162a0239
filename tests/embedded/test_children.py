"""The supervisor, with small Python programs for children."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from shared.embedded import children
from shared.embedded.children import Child, ChildFailed, ChildSpec, InUse

Eventually = Callable[[Callable[[], bool]], Awaitable[None]]

ROOT = Path(__file__).parents[2]

OBEDIENT = "import signal; print('up', flush=True); signal.pause()"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {OBEDIENT}"
POLITE = """
import os, signal, sys
def say(what):  # in one piece: others write to the same file
    os.write(1, f'{sys.argv[1]} {what}\\n'.encode())
def leave(*_):
    say('leaves')
    sys.exit()
signal.signal(signal.SIGTERM, leave)
say('came')
signal.pause()
"""
PARENT = """
import asyncio, sys
from pathlib import Path
from shared.embedded.children import Child, ChildSpec
async def main():
    child = Child(ChildSpec(name='child', argv=[sys.executable, '-c', 'import signal; signal.pause()']))
    await child.start()
    Path(sys.argv[1]).write_text(str(child.pid))
    await asyncio.Event().wait()
asyncio.run(main())
"""


def python(name: str, code: str, log: Path, *, grace: float = 10, lock: Path | None = None) -> Child:
    """A child that counts as ready once it has printed a line."""

    async def ready() -> None:
        while True:
            if read(log).endswith("\n"):
                return
            await asyncio.sleep(0.01)

    argv = [sys.executable, "-c", code, name]
    return Child(ChildSpec(name=name, argv=argv, log=log, grace=grace, ready=ready, lock=lock))


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


async def test_stop_is_graceful(data: Path) -> None:
    child = python("polite", POLITE, data / "log")
    await child.start()
    await child.stop()
    assert await child.exited() == 0
    assert child.pid is None
    assert (data / "log").read_text() == "polite came\npolite leaves\n"


async def test_a_child_that_ignores_the_stop_signal_is_killed(data: Path) -> None:
    child = python("stubborn", STUBBORN, data / "log", grace=0.1)
    await child.start()
    await child.stop()
    assert await child.exited() == -signal.SIGKILL


async def test_a_child_has_its_own_session_and_ignores_no_signal(eventually: Eventually) -> None:
    child = Child(ChildSpec(name="sleep", argv=["/bin/sleep", "60"]))
    await child.start()
    try:
        pid = child.pid
        assert pid is not None
        await eventually(lambda: psutil.Process(pid).name() == "sleep")
        assert os.getsid(pid) == pid
        if status := read(Path(f"/proc/{pid}/status")):
            assert int(status.split("SigIgn:")[1].split()[0], 16) & 0x7FFF_FFFF == 0  # above are the C library's own
    finally:
        await child.kill()


async def test_start_fails_with_the_last_lines_of_the_log(data: Path) -> None:
    argv = [sys.executable, "-c", "raise SystemExit('no such luck')"]
    child = Child(ChildSpec(name="broken", argv=argv, log=data / "log", ready=never))
    with pytest.raises(ChildFailed, match=r"broken ended with code 1(?s:.*)no such luck"):
        await child.start()
    missing = Child(ChildSpec(name="missing", argv=["/nowhere/at-all"], log=data / "missing", ready=never))
    with pytest.raises(ChildFailed, match="/nowhere/at-all: No such file"):
        await missing.start()


async def test_start_fails_where_the_child_is_not_ready_in_time(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "START_SECONDS", 0.2)
    child = Child(ChildSpec(name="slow", argv=[sys.executable, "-c", OBEDIENT], log=data / "log", ready=never))
    with pytest.raises(ChildFailed, match="slow was not ready within"):
        await child.start()
    assert child.pid is None


async def never() -> None:
    await asyncio.Event().wait()


async def test_the_lock_is_held_as_long_as_anything_the_child_forked_lives(data: Path, eventually: Eventually) -> None:
    orphan = data / "orphan"
    forks = f"""
import os, signal
pid = os.fork()
if pid == 0:
    os.setsid()
    signal.pause()
open({str(orphan)!r}, 'w').write(str(pid))
{OBEDIENT}
"""
    child = python("forks", forks, data / "log", lock=data / "lock")
    await child.start()
    await eventually(lambda: bool(orphan.exists() and orphan.read_text()))
    with pytest.raises(InUse):
        await children.hold(data / "lock", seconds=0)
    await child.kill()
    with pytest.raises(InUse):
        await children.hold(data / "lock", seconds=0.05)

    starting = asyncio.create_task(child.start())
    os.kill(int(orphan.read_text()), signal.SIGKILL)
    await starting
    assert child.pid is not None
    await child.kill()
    os.kill(int(orphan.read_text()), signal.SIGKILL)


async def test_supervise_restarts_what_ends_and_stops_in_reverse(
    data: Path, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "FIRST_DELAY", 0.05)
    log = data / "log"
    first, second, third = (python(name, POLITE, log) for name in ("first", "second", "third"))
    keeping = asyncio.create_task(children.supervise([first], [second, third]))
    await eventually(lambda: "third came" in read(log))
    for times in (1, 2):
        await eventually(lambda times=times: read(log).count("second came") == times)  # type: ignore[misc]
        assert second.pid is not None
        os.kill(second.pid, signal.SIGKILL)
    await eventually(lambda: read(log).count("second came") == 3)
    assert log.read_text().count("first came") == 1
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping
    *_, last = lines = log.read_text().splitlines()
    assert last == "first leaves"
    assert sorted(lines[-3:-1]) == ["second leaves", "third leaves"]
    assert [child.pid for child in (first, second, third)] == [None, None, None]


async def test_supervise_waits_longer_for_what_keeps_ending(
    data: Path, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "FIRST_DELAY", 0.1)
    monkeypatch.setattr(children, "LONGEST_DELAY", 0.4)
    log = data / "log"
    times = "import time; print(time.monotonic(), flush=True)"
    child = Child(ChildSpec(name="brief", argv=[sys.executable, "-S", "-c", times], log=log))
    keeping = asyncio.create_task(children.supervise([child]))
    await eventually(lambda: read(log).count("\n") == 5)
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping
    starts = [float(line) for line in log.read_text().split()]
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert all(gap >= least for gap, least in zip(gaps, (0.1, 0.2, 0.4, 0.4), strict=True))


async def test_supervise_stops_the_others_where_a_first_start_fails(data: Path) -> None:
    good = python("good", POLITE, data / "good")
    bad = python("bad", "raise SystemExit(3)", data / "bad")
    with pytest.raises(ChildFailed):
        await children.supervise([good], [bad])
    assert (data / "good").read_text() == "good came\ngood leaves\n"


def start_parent(report: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", PARENT, str(report)], cwd=ROOT, stdout=subprocess.DEVNULL)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
async def test_a_child_dies_with_its_parent(data: Path, eventually: Eventually) -> None:
    report = data / "pid"
    parent = start_parent(report)
    try:
        await eventually(lambda: read(report) != "")
    finally:
        parent.kill()
        parent.wait()
    await eventually(lambda: gone(int(report.read_text())))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the user")
async def test_a_child_runs_as_the_given_user_without_our_groups() -> None:
    groups = os.getgroups()
    os.setgroups([0, 4])
    try:
        code, printed = await children.run(["/usr/bin/id", "-G"], user=(65534, 65534))
    finally:
        os.setgroups(groups)
    assert (code, printed.split()) == (0, ["65534"])
    code, printed = await children.run(["/usr/bin/id", "-u"], user=(65534, 65534))
    assert (code, printed.split()) == (0, ["65534"])


async def test_run_kills_what_takes_too_long(data: Path, eventually: Eventually) -> None:
    report = data / "pid"
    code = f"import os, signal; open({str(report)!r}, 'w').write(str(os.getpid())); signal.pause()"
    with pytest.raises(TimeoutError):
        await children.run([sys.executable, "-S", "-c", code], seconds=1)
    await eventually(lambda: gone(int(report.read_text())))


async def test_run_hands_over_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    code, printed = await children.run(
        [sys.executable, "-c", "import os; print(dict(os.environ), input())"], stdin="hi\n"
    )
    assert code == 0
    assert "sk-secret" not in printed
    assert printed.endswith("hi\n")
