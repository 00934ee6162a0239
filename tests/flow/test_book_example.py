"""`examples/book.py` against a running gateway: a whole book, in one submit."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from tests.chaos.test_webhooks import receiver
from tests.conftest import fresh_database
from tests.flow.test_batch_files import CONFIG
from tests.gateway import ADMIN_KEY, Gateway, gateway, until

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
async def sluice(
    tmp_path_factory: pytest.TempPathFactory, database_url: str, template: str, redis_url: str
) -> AsyncIterator[Gateway]:
    async with (
        fresh_database(database_url, template) as database,
        gateway(tmp_path_factory.mktemp("book"), database, redis_url, config=CONFIG) as running,
    ):
        yield running


async def run(sluice: Gateway, *arguments: str) -> tuple[int | None, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    child = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLES / "book.py"), *arguments, "--url", sluice.url, "--key", ADMIN_KEY,
        env={**env, "COLUMNS": "200"}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, _ = await child.communicate()
    return child.returncode, out.decode()


async def test_a_book_of_two_levels_is_one_batch_one_cost_and_one_webhook(sluice: Gateway, tmp_path: Path) -> None:
    text = (EXAMPLES / "documents" / "1981_jimmy_carter_d.txt").read_text()
    (tmp_path / "book.txt").write_text(text)
    async with receiver() as target:
        code, out = await run(
            sluice, str(tmp_path / "book.txt"), "--model", "fast", "--part-words", "600",
            "--webhook", f"{target.url}/ok/1",
        )  # fmt: skip
        assert code == 0, out
        await until(target.received)
    _, listed, _ = await sluice.ask("GET", "/v1/batches")
    [batch] = listed["data"]
    assert batch["id"] in out
    [[(_, event)]] = target.tries.values()
    assert orjson.loads(event)["data"]["cost_usd"] == batch["cost_usd"]
    _, made, _ = await sluice.ask("GET", "/v1/jobs?limit=100")
    names = [one["custom_id"] for one in made["data"]]
    parts = sum(name.startswith("part-") for name in names)
    assert parts > 20
    assert len(names) == parts + -(-parts // 20) + 1
    whole = next(one["id"] for one in made["data"] if one["custom_id"] == "whole")
    summary = (await sluice.job(whole))["result"]["choices"][0]["message"]["content"]
    assert " ".join(summary.split()) in " ".join(out.split())
    first, _, _ = " ".join(summary.split()).partition(". ")
    assert first in " ".join(text.split())  # the simulated provider picks sentences, twice and once more
    assert f"{len(names)} jobs" in out
    assert f"${float(batch['cost_usd']):.6f}" in out


async def test_what_cannot_be_summarized_is_told(sluice: Gateway, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "book.txt").write_text("A word.")
    assert await run(sluice, str(tmp_path / "empty.txt"), "--model", "fast") == (
        1,
        f"book: {tmp_path / 'empty.txt'} is empty\n",
    )
    code, out = await run(sluice, str(tmp_path / "book.txt"), "--model", "nobody/x")
    assert code == 1
    assert "model_not_found" in out
