"""Where a job goes, as the front door explains it and as it then stores it."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import orjson
import pytest

from shared import queue
from tests.api.conftest import Tenant, fetch_row, new_tenant, rows
from tests.gateway import Gateway, gateway, line, until

CONFIG = """
providers:
  near:
    kind: simulated
    base_url: UPSTREAM/v1
    models:
      small: {price: {input: 1, output: 1}, context_window: 1000, vision: false}
      large: {price: {input: 2, output: 2}, context_window: 100000, max_output: 4000}
  far: {kind: openai, base_url: UPSTREAM/v1, models: {cheap: {price: {input: 0.5, output: 0.5, cached_input: 0}}, blind: {tools: false}}}
  router: {kind: openrouter, base_url: UPSTREAM/v1}
models:
  cheapest: {strategy: cost, targets: [near/small, near/large, far/cheap]}
  turns: {strategy: round_robin, targets: [near/small, near/large]}
  busy: {strategy: least_busy, targets: [near/idle, near/other]}
  level: {strategy: least_busy, targets: [near/left, near/right]}
  local: {targets: [near/small, {target: far/cheap, when: {team: search}}], fallbacks: [backup], content_fallbacks: [far/cheap]}
  backup: {targets: [near/large]}
  long: {targets: [near/small], context_fallbacks: [backup]}
  blind: {targets: [far/blind, near/small]}
  open: {targets: [router/a, router/b]}
"""  # noqa: E501


@pytest.fixture(scope="module")
async def door(
    tmp_path_factory: pytest.TempPathFactory, module_database: str, redis_url: str
) -> AsyncIterator[Gateway]:
    directory = tmp_path_factory.mktemp("explain")
    async with gateway(directory, module_database, redis_url, parts=("api",), config=CONFIG) as running:
        yield running


@pytest.fixture(scope="module")
async def caller(door: Gateway) -> Tenant:
    return await new_tenant(door, "explainer")


async def explained(caller: Tenant, model: str, **options: Any) -> Any:
    body = options.pop("body", {})
    asked = line(model=model, **options)
    asked["body"] |= body
    status, shape, _ = await caller.ask("POST", "/v1/routes/explain", asked)
    assert status == 200, shape
    return shape


async def stored(caller: Tenant, model: str, *, body: dict[str, Any] | None = None, **options: Any) -> Any:
    """Submit a job; return its target, its route and its body as they are stored."""
    asked = line(model=model, **options)
    asked["body"] |= body or {}
    status, job, _ = await caller.ask("POST", "/v1/jobs", asked)
    assert status == 202, job
    row = await fetch_row(
        caller.api,
        "SELECT provider || '/' || upstream_model AS target, route::text, convert_from(body, 'UTF8') AS body "
        "FROM jobs JOIN payloads ON job_id = id WHERE id = $1::uuid",
        job["id"][4:],
    )
    return row["target"], row["route"] and orjson.loads(row["route"]), orjson.loads(row["body"])


async def test_it_says_which_target_why_at_what_cost_and_when(caller: Tenant) -> None:
    shape = await explained(caller, "cheapest", body={"max_tokens": 1_000})
    assert shape.keys() == {
        "object", "model", "strategy", "target", "provider", "estimated_cost_usd", "eta_seconds", "candidates",
        "left_out", "fallbacks",
    }  # fmt: skip
    assert (shape["object"], shape["model"], shape["strategy"]) == ("route", "cheapest", "cost")
    assert (shape["target"], shape["provider"], shape["eta_seconds"]) == ("far/cheap", "far", 0.0)
    first, second, third = shape["candidates"]
    assert [one["target"] for one in (first, second, third)] == ["far/cheap", "near/small", "near/large"]
    assert (first["chosen"], first["why"], second["chosen"], second["why"]) == (
        True, "first by cost", False, "behind by cost",
    )  # fmt: skip
    tokens = len(orjson.dumps(line(model="cheapest")["body"] | {"max_tokens": 1_000})) // 4 + 1_000
    assert float(shape["estimated_cost_usd"]) == pytest.approx(tokens * 0.5e-6)
    assert float(third["estimated_cost_usd"]) == pytest.approx(tokens * 2e-6)
    assert (first["waiting"], first["in_motion"], first["healthy"], first["latency_seconds"]) == (0, 0, True, None)
    assert shape["left_out"] == []
    assert shape["fallbacks"] == {"general": ["near/small", "near/large"], "context": [], "content": []}


async def test_an_answer_of_any_length_counts_as_a_usual_one_and_a_cache_as_used(caller: Tenant) -> None:
    plain, kept = (
        await explained(caller, "cheapest"),
        await explained(caller, "cheapest", body={"prompt_cache_key": "k"}),
    )
    assert float(plain["estimated_cost_usd"]) > 500 * 0.5e-6
    assert float(kept["estimated_cost_usd"]) == pytest.approx(500 * 0.5e-6)
    assert kept["candidates"][1]["estimated_cost_usd"] > plain["candidates"][1]["estimated_cost_usd"]


async def test_who_is_left_out_is_named_with_the_reason(caller: Tenant) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    shape = await explained(caller, "blind", body={"tools": tools})
    assert shape["target"] == "near/small"
    (out,) = shape["left_out"]
    assert out["target"] == "far/blind"
    assert "cannot call tools" in out["why"]
    images = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:" + "x" * 40_000}}]}]
    status, refused, _ = await caller.ask(
        "POST", "/v1/routes/explain", {"body": {"model": "backup", "messages": images}}
    )
    assert (status, refused["error"]["param"]) == (400, "body.messages")


async def test_an_image_is_not_as_long_as_its_base64(caller: Tenant) -> None:
    body = {"model": "near/large", "messages": [{"role": "user", "content": [{"data": "x" * 100_000}, "x" * 8_000]}]}
    shape = await explained(caller, "long", body=body | {"model": "long"})
    assert (shape["target"], shape["left_out"][0]["target"]) == ("near/large", "near/small")
    body["messages"][0]["content"].pop()
    assert (await explained(caller, "long", body=body | {"model": "long"}))["target"] == "near/small"


async def test_nothing_is_stored_nor_counted(caller: Tenant, door: Gateway, redis_url: str) -> None:
    before = await rows(door)
    client = queue.connect(redis_url)
    keys = set(await client.keys("sluice:near:*"))
    firsts = {(await explained(caller, "turns", webhook={"url": "https://example.com"}))["target"] for _ in range(4)}
    assert len(firsts) == 1
    assert await rows(door) == before
    assert set(await client.keys("sluice:near:*")) == keys
    await client.aclose(close_connection_pool=True)


@pytest.mark.parametrize(
    ("asked", "status", "param"),
    [
        (line(model="nobody"), 404, "body.model"),
        (line(model="turns", priority="urgent"), 400, "priority"),
        ({"body": {"model": "turns"}}, 400, "body.messages"),
        (line(model="turns", webhook={"url": "http://127.0.0.1/"}), 400, "webhook.url"),
        ({}, 400, "body"),
        (line(model=["turns"]), 400, "body.model"),
    ],
)
async def test_what_is_no_job_is_refused_as_a_job_is(caller: Tenant, asked: Any, status: int, param: str) -> None:
    found = await caller.ask("POST", "/v1/routes/explain", asked)
    assert (found[0], found[1]["error"]["param"]) == (status, param)
    assert (await caller.ask("POST", "/v1/jobs", asked))[:2] == found[:2]


async def test_a_job_is_stored_with_where_it_goes_and_may_go(caller: Tenant) -> None:
    target, route, _ = await stored(caller, "local")
    chains = {"general": ["near/large"], "context": ["near/large"], "content": ["far/cheap"]}
    assert (target, route) == ("near/small", chains | {"charged_before": 0})
    target, route, _ = await stored(caller, "local", metadata={"team": "search"})
    assert (target, route["general"]) == ("far/cheap", ["near/small", "near/large"])
    assert (await stored(caller, "backup"))[:2] == ("near/large", None)
    assert (await stored(caller, "near/anything"))[:2] == ("near/anything", None)


async def test_a_prompt_that_is_too_long_goes_straight_to_where_it_fits(caller: Tenant) -> None:
    assert (await stored(caller, "long", text="x" * 5_000))[0] == "near/small"
    target, route, _ = await stored(caller, "long", text="x" * 8_000)
    assert (target, route) == ("near/large", None)


async def test_turns_go_round(caller: Tenant) -> None:
    targets = [(await stored(caller, "turns"))[0] for _ in range(4)]
    assert sorted(targets[:2]) == ["near/large", "near/small"]
    assert targets[:2] == targets[2:]


async def test_who_waits_in_a_lane_sends_the_next_job_to_another(caller: Tenant) -> None:
    status, _, _ = await caller.ask("POST", "/v1/batches", {"requests": [line(model="near/idle")] * 30})
    assert status == 202
    shape = await explained(caller, "busy")
    waiting = {one["target"]: one["waiting"] for one in shape["candidates"]}
    assert (shape["target"], shape["candidates"][0]["why"]) == ("near/other", "first by least_busy")
    assert waiting["near/idle"] - waiting["near/other"] >= 30


async def test_a_batch_is_spread_over_the_lanes_at_once(caller: Tenant, door: Gateway) -> None:
    async def spread() -> list[int]:
        _, batch, _ = await caller.ask("POST", "/v1/batches", {"requests": [line(model="level")] * 10})
        query = "SELECT count(*) FROM jobs WHERE batch_id = $1 GROUP BY upstream_model"
        found = await fetch_row(door, f"SELECT array_agg(count) FROM ({query}) AS _", UUID(batch["id"][6:]))
        return list(found[0])

    await until(spread, lambda found: found == [5, 5], what="spread", seconds=20)


# ------------------------------------------------------------------ preferences


async def test_preferences_choose_and_are_not_passed_on(caller: Tenant) -> None:
    target, route, body = await stored(caller, "cheapest", body={"provider": {"only": ["near"], "sort": "price"}})
    assert (target, route["general"]) == ("near/small", ["near/large"])
    assert "provider" not in body
    wishes = {"order": ["near/large"], "allow_fallbacks": False}
    assert (await stored(caller, "cheapest", body={"provider": wishes}))[:2] == ("near/large", None)
    assert (await stored(caller, "backup", body={"provider": None}))[2].keys() == {"model", "messages"}


async def test_openrouters_preferences_are_its_own(caller: Tenant) -> None:
    wishes = {"only": ["azure"], "quantizations": ["fp8"]}
    target, route, body = await stored(caller, "open", body={"provider": wishes})
    assert (target, route["general"], body["provider"]) == ("router/a", ["router/b"], wishes)


@pytest.mark.parametrize(
    ("model", "wishes", "param"),
    [
        ("cheapest", {"only": ["nobody"]}, "body.provider.only"),
        ("cheapest", {"quantizations": []}, "body.provider.quantizations"),
        ("near/small", {"ignore": ["near"]}, "body.provider.ignore"),
        ("near/small", {"only": ["openai"]}, "body.provider.only"),
        ("near/small", [], "body.provider"),
    ],
)
async def test_preferences_that_cannot_be_followed(caller: Tenant, model: str, wishes: Any, param: str) -> None:
    asked = line(model=model)
    asked["body"]["provider"] = wishes
    status, shape, _ = await caller.ask("POST", "/v1/jobs", asked)
    assert (status, shape["error"]["param"]) == (400, param)


async def test_who_names_a_target_has_chosen(caller: Tenant) -> None:
    wishes = {"only": ["near"], "max_price": {"prompt": 0}, "order": ["far"], "sort": "price"}
    assert (await stored(caller, "near/small", body={"provider": wishes}))[:2] == ("near/small", None)


async def test_what_one_target_can_do_is_not_dropped(caller: Tenant) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    target, _, body = await stored(caller, "blind", body={"tools": tools, "drop_unsupported": True})
    assert (target, "tools" in body) == ("near/small", True)
    target, _, body = await stored(caller, "far/blind", body={"tools": tools, "drop_unsupported": True})
    assert (target, "tools" in body) == ("far/blind", False)


async def test_a_model_is_shown_by_its_first_target(caller: Tenant) -> None:
    _, shown, _ = await caller.ask("GET", "/v1/models/cheapest")
    assert (shown["id"], shown["owned_by"], shown["context_window"]) == ("cheapest", "sluice", 1_000)
