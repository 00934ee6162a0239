"""Real `sluice` commands against a running gateway: their processes, outputs and exit codes."""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from tests.gateway import ADMIN_KEY, Gateway


async def start(gateway: Gateway, directory: Path, *arguments: str, key: str = ADMIN_KEY) -> asyncio.subprocess.Process:
    env = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "shared.cli", *arguments,
        cwd=directory,
        env={
            **env,
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "SLUICE_URL": gateway.url,
            "SLUICE_API_KEY": key,
            "COLUMNS": "200",
            "TMPDIR": str(directory),
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def sluice_command(
    gateway: Gateway, directory: Path, *arguments: str, key: str = ADMIN_KEY
) -> tuple[int | None, str, str]:
    """Run a command to its end; return exit code, standard output, standard error."""
    child = await start(gateway, directory, *arguments, key=key)
    out, err = await asyncio.wait_for(child.communicate(), 60)
    return child.returncode, out.decode(), err.decode()


def write(path: Path, lines: Sequence[Mapping[str, Any]]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(each) + b"\n" for each in lines))
    return path


def results(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(text) for text in path.read_bytes().splitlines()]
