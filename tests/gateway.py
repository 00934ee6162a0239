"""A whole gateway in processes of its own, for the tests that look at it from outside.

Each part is a real child (`python -m gateway_api`, `python -m workers …`) that a test may kill; the upstream is the
simulated provider, whose log of received calls is what counts.
"""

import asyncio
import base64
import contextlib
import io
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import orjson

ADMIN_KEY = "test-admin-key"
SECRETS_KEY = base64.b64encode(bytes(range(32))).decode()
T = TypeVar("T")

# Short leases, so that a killed worker's jobs come back while a test is looking.
FAST = {"SLUICE_LEASE": "4", "SLUICE_RENEWAL": "1", "SLUICE_SWEEP_INTERVAL": "0.2", "SLUICE_SHUTDOWN_GRACE": "1"}


async def until(
    probe: Callable[[], Awaitable[T]], good: Callable[[T], object] = bool, *, seconds: float = 60.0, what: str = ""
) -> T:
    """Ask `probe` again and again until its answer is good; fail after `seconds`, showing the last answer."""
    deadline = time.monotonic() + seconds
    while True:
        answer = await probe()
        if good(answer):
            return answer
        assert time.monotonic() < deadline, f"{what or 'not reached'} within {seconds} s; last: {answer!r}"
        await asyncio.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Gateway:
    """Front door, pools, delivery, maintenance and the upstream, each started and killed by name."""

    def __init__(
        self, directory: Path, database_url: str, redis_url: str, *, config: str, env: Mapping[str, str]
    ) -> None:
        self.directory = directory
        self.port, self.upstream_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.upstream_log = directory / "upstream.log"
        path = directory / "sluice.yaml"
        path.write_text(config.replace("UPSTREAM", f"http://127.0.0.1:{self.upstream_port}"))
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")},
            **FAST,
            "SLUICE_DATABASE_URL": database_url,
            "SLUICE_REDIS_URL": redis_url,
            "SLUICE_ADMIN_KEY": ADMIN_KEY,
            "SLUICE_SECRETS_KEY": SECRETS_KEY,
            "SLUICE_PORT": str(self.port),
            "SLUICE_CONFIG": str(path),
            "SLUICE_LOG_LEVEL": "info",
            "SLUICE_SIMULATED_URL": f"http://127.0.0.1:{self.upstream_port}/v1",
            "PYTHONWARNINGS": "default",
            **env,
        }
        self.children: dict[str, asyncio.subprocess.Process] = {}
        self.client: aiohttp.ClientSession

    async def start(self, name: str, *arguments: str) -> asyncio.subprocess.Process:
        """Start a part: `api`, `upstream`, `deliver`, `maintain`, or a pool under any other name."""
        commands = {
            "api": ["gateway_api"],
            "deliver": ["workers", "deliver"],
            "maintain": ["workers", "maintain"],
            "upstream": [
                "shared.embedded.upstream", "--port", str(self.upstream_port), "--log", str(self.upstream_log),
            ],
        }  # fmt: skip
        argv = ["-m", *commands.get(name, ["workers", "pool"]), *arguments]
        with (self.directory / f"{name}.log").open("ab") as log:
            child = await asyncio.create_subprocess_exec(sys.executable, *argv, env=self.env, stdout=log, stderr=log)
        self.children[name] = child
        if name in ("api", "upstream"):
            await self.listening(self.port if name == "api" else self.upstream_port)
        return child

    async def listening(self, port: int) -> None:
        async def probe() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return False
            writer.close()
            await writer.wait_closed()
            return True

        await until(probe, what=f"port {port}\n{self.logs()}")

    async def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a part a signal and wait for its end."""
        child = self.children.pop(name)
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(number)
        async with asyncio.timeout(60):
            await child.wait()

    async def close(self) -> None:
        await self.client.close()
        for name in list(self.children):
            await self.kill(name)

    def logs(self) -> str:
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')[-3000:]}"
            for path in sorted(self.directory.glob("*.log"))
            if path != self.upstream_log
        )

    # ------------------------------------------------------------------ the API

    async def ask(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Return status, JSON and headers of one request."""
        async with self.client.request(
            method, self.url + path, data=None if body is None else io.BytesIO(orjson.dumps(body)), headers=headers
        ) as answer:
            raw = await answer.read()
            return answer.status, orjson.loads(raw) if raw else None, answer.headers

    async def submit(self, **fields: Any) -> str:
        """Submit a job that must be accepted; return its id. `simulate` goes into the body, for the upstream."""
        status, job, _ = await self.ask("POST", "/v1/jobs", line(**fields))
        assert status == 202, job
        return str(job["id"])

    async def job(self, id_: str, *, wait: int = 0) -> Any:
        status, job, _ = await self.ask("GET", f"/v1/jobs/{id_}" + (f"?wait={wait}" if wait else ""))
        assert status == 200, job
        return job

    async def ended(self, id_: str, *, seconds: int = 20) -> Any:
        job = await self.job(id_, wait=seconds)
        assert job["finished_at"] is not None, (job, self.logs())
        return job

    async def attempts(self, id_: str) -> list[Any]:
        status, listed, _ = await self.ask("GET", f"/v1/jobs/{id_}/attempts")
        assert status == 200, listed
        return list(listed["data"])

    def calls(self, job: str = "") -> list[Any]:
        """Return the calls that the upstream received, from its own log: `id` is the attempt's."""
        if not self.upstream_log.exists():
            return []
        lines = [orjson.loads(one) for one in self.upstream_log.read_bytes().splitlines() if one.endswith(b"}")]
        return [one for one in lines if "event" not in one and str(one["id"]).startswith(job)]


def line(
    *, text: str = "hello", model: str = "simulated/small", simulate: Mapping[str, Any] | None = None, **options: Any
) -> dict[str, Any]:
    """Return a job request; `simulate` tells the simulated upstream how to behave."""
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}]}
    if simulate is not None:
        body["simulate"] = dict(simulate)
    return {"body": body, **options}


CONFIG = """
providers:
  simulated: {kind: simulated, base_url: UPSTREAM/v1, timeout: 30s}
  idle: {kind: simulated, base_url: UPSTREAM/v1}
webhooks: {allow_http: true, allow_private_networks: ["127.0.0.0/8"]}
"""


@contextlib.asynccontextmanager
async def gateway(
    directory: Path,
    database_url: str,
    redis_url: str,
    *,
    parts: tuple[str, ...] = ("upstream", "api", "maintain", "deliver", "simulated"),
    config: str = CONFIG,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[Gateway]:
    """Run the named parts for the block; `simulated` is a worker pool of that provider."""
    running = Gateway(directory, database_url, redis_url, config=config, env=env or {})
    running.client = aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {ADMIN_KEY}"}, timeout=aiohttp.ClientTimeout(total=90)
    )
    try:
        for part in parts:
            await (running.start(part, part) if part == "simulated" else running.start(part))
        yield running
    finally:
        await running.close()
