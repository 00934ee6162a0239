import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

Eventually = Callable[[Callable[[], bool]], Awaitable[None]]


@pytest.fixture
def data() -> Iterator[Path]:
    """An empty data directory with a short path, open to every user's passage as `.sluice` usually is."""
    with tempfile.TemporaryDirectory(prefix="sluice-embedded-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        yield directory


@pytest.fixture
def eventually() -> Eventually:
    """Wait until a condition holds, for up to a minute."""

    async def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, "it never happened"
            await asyncio.sleep(0.02)

    return wait
