"""What jobs would cost, asked before they are sent: counted exactly, priced per target, nothing stored."""

import asyncio
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from shared import tokens
from tests.api.conftest import MOST_REQUESTS, Tenant, new_key
from tests.commands import sluice_command
from tests.gateway import Gateway, line

URL = "/v1/estimate"
ROUTED = "simulated/small"


async def estimate(tenant: Tenant, body: Any) -> Any:
    status, found, _ = await tenant.ask("POST", URL, body)
    assert status == 200, found
    return found


@pytest.mark.usefixtures("nothing_stored")
async def test_a_job_is_priced_and_not_stored(tenant: Tenant) -> None:
    asked = line(text="word " * 400)
    asked["body"]["max_tokens"] = 100
    found = await estimate(tenant, asked)
    counted = 2_000 // 4 + 4 + 3  # the simulated provider's tokens are not known: four bytes are one
    assert found == {
        "object": "estimate",
        "jobs": 1,
        "input_tokens": counted,
        "output_tokens": {"expected": 100, "most": 100},
        "cost_usd": {"expected": found["cost_usd"]["expected"], "most": found["cost_usd"]["most"]},
        "unpriced": 0,
        "by_target": [
            {
                "target": ROUTED, "provider": "simulated", "model": "small", "jobs": 1, "input_tokens": counted,
                "output_tokens": {"expected": 100, "most": 100}, "cost_usd": found["cost_usd"], "unpriced": 0,
            }
        ],
    }  # fmt: skip
    assert found["cost_usd"]["expected"] == f"{(counted * 100 + 100 * 400) / 1e9:.7f}"
    assert float(found["cost_usd"]["most"]) > float(found["cost_usd"]["expected"])


async def test_the_input_is_counted_with_the_models_own_tokens(tenant: Tenant) -> None:
    tokens.load()
    text = "Die Donaudampfschifffahrtsgesellschaft hat 1234567 Kapitäne."
    for model in ("simulated/gpt-4o", "simulated/gpt-4"):
        found = await estimate(tenant, line(text=text, model=model))
        assert found["input_tokens"] == tokens.count(text, model).tokens + 7
    asked = {"url": "/v1/embeddings", "body": {"model": "simulated/text-embedding-3-small", "input": [text, text]}}
    found = await estimate(tenant, asked)
    assert found["input_tokens"] == 2 * tokens.count(text, "text-embedding-3-small").tokens
    assert found["output_tokens"] == {"expected": 0, "most": 0}


async def test_a_batch_is_added_up_by_target(tenant: Tenant) -> None:
    requests = [line(), line(model="fast"), line(model="simulated/large"), line(model="other/listed")]
    found = await estimate(tenant, {"requests": requests[:3], "metadata": {"k": "v"}})
    assert [(one["target"], one["jobs"]) for one in found["by_target"]] == [("simulated/large", 1), (ROUTED, 2)]
    assert (found["jobs"], found["unpriced"]) == (3, 0)
    assert found["output_tokens"]["expected"] == 3 * 500
    assert found["output_tokens"]["most"] > 3 * 500
    found = await estimate(tenant, {"requests": requests})
    # What is not known of one is not known of all, but each target says what it knows.
    assert (found["jobs"], found["unpriced"], found["cost_usd"]) == (4, 1, {"expected": None, "most": None})
    unknown, *known = found["by_target"]
    assert (unknown["target"], unknown["cost_usd"]["expected"]) == ("other/listed", None)
    assert all(one["cost_usd"]["expected"] for one in known)


async def test_the_answer_is_as_long_as_this_tenants_lately(tenant: Tenant, redis_url: str) -> None:
    client = Redis.from_url(redis_url, socket_timeout=10)
    try:
        learned = f"40.4:3:1:25:100:{time.time() * 1000}"
        await client.hset("sluice:simulated:usage:learned", tenant.id, learned)  # type: ignore[misc]
    finally:
        await client.aclose()
    found = await estimate(tenant, line(model="simulated/learned"))
    assert found["output_tokens"]["expected"] == 40
    asked = line(model="simulated/learned")
    asked["body"]["max_tokens"] = 7
    assert (await estimate(tenant, asked))["output_tokens"] == {"expected": 7, "most": 7}


async def test_every_choice_is_an_answer(tenant: Tenant) -> None:
    asked = line()
    asked["body"] |= {"n": 3, "max_tokens": 10}
    assert (await estimate(tenant, asked))["output_tokens"] == {"expected": 30, "most": 30}


@pytest.mark.usefixtures("nothing_stored")
async def test_what_is_wrong_is_said_as_for_a_batch(tenant: Tenant) -> None:
    requests = [line(), line(model="absent/x"), {"body": {}}, line(priority="no")]
    status, shape, _ = await tenant.ask("POST", URL, {"requests": requests})
    assert status == 400
    assert {fault["param"].partition(".")[0] for fault in shape["error"]["faults"]} == {
        "requests[1]", "requests[2]", "requests[3]",
    }  # fmt: skip
    status, shape, _ = await tenant.ask("POST", URL, {"requests": [{}] * (MOST_REQUESTS + 1)})
    assert (status, shape["error"]["code"]) == (413, "too_many_tasks")
    key = await new_key(tenant, models=["fast"])
    assert (await key.ask("POST", URL, line()))[0] == 403
    assert (await key.ask("POST", URL, line(model="fast")))[0] == 200


async def test_others_are_served_while_a_large_batch_is_counted(tenant: Tenant) -> None:
    text = "All that glitters is not gold. " * 15
    large = {"requests": [line(text=text, model="simulated/gpt-4o")] * MOST_REQUESTS}
    asked = asyncio.create_task(estimate(tenant, large))
    slowest = 0.0
    while not asked.done():
        began = time.monotonic()
        assert (await tenant.api.ask("GET", "/healthz"))[0] == 200
        slowest = max(slowest, time.monotonic() - began)
    assert (await asked)["jobs"] == MOST_REQUESTS
    assert slowest < 2


async def test_the_command_line_prints_it_and_sends_nothing(api: Gateway, tmp_path: Path) -> None:
    requests = [{"prompt": "hello", "model": "fast"}, {"prompt": "hello", "model": "other/listed"}]
    (tmp_path / "work.jsonl").write_bytes(b"\n".join(orjson.dumps(one) for one in requests[:1] * 2))
    code, out, err = await sluice_command(
        api, tmp_path, "submit", str(tmp_path / "work.jsonl"), "--estimate", key="test-admin-key"
    )
    assert code == 0, err
    assert "simulated/small" in out
    assert "2" in out
    assert "$" in out
    assert not list(tmp_path.glob("*results*"))
    (tmp_path / "work.jsonl").write_bytes(b"\n".join(orjson.dumps(one) for one in requests))
    code, out, err = await sluice_command(
        api, tmp_path, "submit", str(tmp_path / "work.jsonl"), "--estimate", key="test-admin-key"
    )
    assert code == 0, err
    assert "unknown" in out
