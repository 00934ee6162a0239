"""`make demo`: starts a whole gateway on this machine, summarizes `examples/documents` through it, and stops it again.

With `OPENAI_API_KEY` in the environment a real model works, else the simulated one. `MODEL` names another model,
`SLUICE_DATA_DIR` keeps the data, `--keep` leaves the gateway running.
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import corpus
import summarize

from shared.cli.client import Address, CliError, find_address

READY_SECONDS = 120.0
STOP_SECONDS = 30.0
LOG_TAIL = 30
SIMULATED = "simulated"


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway that is ready."""

    address: Address
    child: "subprocess.Popen[bytes]"


def model(environ: Mapping[str, str]) -> str:
    """Return the model to use: the one named, else OpenAI's where there is a key, else the simulated one."""
    if environ.get("MODEL"):
        return environ["MODEL"]
    if environ.get("SLUICE_CONFIG"):
        raise CliError("SLUICE_CONFIG is set: name one of its models with MODEL")
    return "gpt-5-mini" if environ.get("OPENAI_API_KEY") else SIMULATED


@contextlib.contextmanager
def gateway(config: str | None = None) -> Iterator[Running]:
    """Run `sluice up` as a child on a free port until the block ends; `config` is the text of its sluice.yaml.

    Data and log live in a temporary folder unless `SLUICE_DATA_DIR` is set. Raises CliError, with the end of the
    child's log, where it does not get ready.
    """
    scratch = Path(tempfile.mkdtemp(prefix="sluice-demo-"))
    scratch.chmod(0o711)  # where this is root, Postgres's own user must get through; what is secret has its own mode
    (scratch / "data").mkdir(mode=0o711)
    environ = {"SLUICE_DATA_DIR": str(scratch / "data"), "SLUICE_CONFIG": str(scratch / "sluice.yaml"), **os.environ}
    environ |= {"SLUICE_PORT": str(free_port()), "SLUICE_HOST": "127.0.0.1"}
    if config is not None:
        (scratch / "sluice.yaml").write_text(config)
        environ["SLUICE_CONFIG"] = str(scratch / "sluice.yaml")
    try:
        with child([sys.executable, "-m", "shared.cli", "up"], environ, log=scratch / "up.log") as started:
            url = f"http://127.0.0.1:{environ['SLUICE_PORT']}"
            wait_until_answered(
                f"{url}/readyz", started, log=scratch / "up.log", seconds=READY_SECONDS, name="sluice up"
            )
            own = {name: environ[name] for name in ("SLUICE_ADMIN_KEY", "SLUICE_DATA_DIR") if environ.get(name)}
            yield Running(find_address(own, url=url), started)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def child(argv: list[str], environ: Mapping[str, str], *, log: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a child in a session of its own, its output in a file; stop it with SIGTERM, and what is left by force."""
    with log.open("wb") as output:
        started = subprocess.Popen(
            argv, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield started
        finally:
            started.terminate()
            try:
                started.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(started.pid, signal.SIGKILL)
                started.wait()


def wait_until_answered(url: str, started: "subprocess.Popen[bytes]", *, log: Path, seconds: float, name: str) -> None:
    """Wait until a URL answers 200. Raises CliError with the end of the child's log where it dies or takes too long."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            died = started.poll() is not None
        if died or time.monotonic() > deadline:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL:])
            fate = f"ended with code {started.returncode}" if died else f"is not ready after {seconds:.0f} s"
            raise CliError(f"{name} {fate}. The end of its log:\n{tail}")
        time.sleep(0.1)


def free_port() -> int:
    """Return a loopback port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def exit_on_sigterm() -> None:
    """Let SIGTERM unwind the stack, so that children are stopped."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def keep(running: Running) -> None:
    """Wait for Ctrl-C while the gateway runs on."""
    key = running.address.key or ""
    print(f"The gateway keeps running at {running.address.url}, key {key}. Ctrl-C stops it.", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        running.child.wait()


def main() -> int:
    """Run the demo; exit code 0 where every document has a summary."""
    parser = argparse.ArgumentParser(description="Start a gateway, summarize examples/documents, stop it.")
    parser.add_argument("--keep", action="store_true", help="leave the gateway running until Ctrl-C")
    parser.add_argument("--limit", type=int, help="only so many documents")
    given = parser.parse_args()
    exit_on_sigterm()
    try:
        wish = summarize.Wish(model(os.environ))
        found = corpus.read(Path(__file__).parent / "documents")[: given.limit]
        print("Starting a gateway on this machine …", flush=True)
        with gateway() as running:
            dashboard = f"{running.address.url}/"
            print(f"Ready. Dashboard: {dashboard}")
            if wish.model == SIMULATED:
                print(
                    "There is no OPENAI_API_KEY: the simulated provider answers, with sentences picked from the texts."
                )
            print(f"Summarizing {len(found)} documents with {wish.model}.", flush=True)
            code = summarize.run(running.address, found, wish)
            print(f"\nDashboard: {dashboard}", flush=True)
            if given.keep:
                keep(running)
        return code
    except CliError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
