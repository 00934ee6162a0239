"""The page at `/`: open to anybody and empty of everything; what it asks for with a key is there."""

import base64
import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.gateway import Gateway, gateway, until

CONFIG = """
providers:
  simulated: {kind: openai_compatible, base_url: UPSTREAM/v1, keys: [{name: first, value: sk-1}]}
"""


@pytest_asyncio.fixture
async def sluice(tmp_path: Path, database: str, redis: str) -> AsyncIterator[Gateway]:
    parts = ("upstream", "api", "maintain", "simulated")
    async with gateway(tmp_path, database, redis, parts=parts, config=CONFIG) as running:
        yield running


async def test_a_refused_key_is_what_the_page_asks_for_and_nothing_is_on_the_page(sluice: Gateway) -> None:
    await sluice.submit(model="simulated/m", simulate={"fail": [{"status": 401}] * 5})
    async with sluice.client.get(f"{sluice.url}/", headers={"Authorization": ""}) as answer:
        page, policy = await answer.text(), answer.headers["Content-Security-Policy"]
        assert answer.status == 200
    # The browser runs this script and no other, and it talks to nobody else.
    [script] = re.findall("<script>(.*?)</script>", page, re.DOTALL)
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert "connect-src 'self'" in policy
    assert "innerHTML" not in script
    asked = re.findall(r'ask\("([^"]+)"\)', script)
    assert asked == ["/v1/admin/deployments", "/v1/admin/alerts?limit=20"]

    async def healths() -> list[str]:
        return [one["health"] for one in (await sluice.ask("GET", asked[0]))[1]["data"]]

    await until(healths, lambda found: "out" in found)

    async def kinds() -> list[str]:
        return [one["kind"] for one in (await sluice.ask("GET", asked[1]))[1]["data"]]

    await until(kinds, lambda found: "key.refused" in found)
