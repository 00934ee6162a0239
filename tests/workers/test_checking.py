"""The check of answers in a process of its own: right, and unharmed by schemas that are made to harm."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
import pytest_asyncio

from shared import tokens
from shared.db.claims import Claim
from workers import checking
from workers.check import Checker, Unchecked, continued

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "array", "items": {"type": "integer", "minimum": 1}}},
    "required": ["city"],
    "additionalProperties": False,
}


@pytest_asyncio.fixture(scope="module")
async def checker() -> AsyncIterator[Checker]:
    made = Checker()
    yield made
    await made.close()


async def words(checker: Checker, schema: Any, *answers: Any, tenant: str = "t") -> str | None:
    texts = [one if isinstance(one, str) else orjson.dumps(one).decode() for one in answers]
    return await checker.words(tenant, schema, texts)


async def test_what_fits_fits(checker: Checker) -> None:
    assert await words(checker, SCHEMA, {"city": "Oslo", "days": [1, 2]}) is None
    assert await words(checker, SCHEMA, {"city": "Oslo"}, {"city": "Rome"}) is None
    assert await words(checker, {"type": "string", "format": "email"}, '"nobody"') is None


async def test_what_does_not_is_said_with_where_and_what(checker: Checker) -> None:
    said = await words(checker, SCHEMA, {"days": [3, 0, "x"], "more": "y" * 5_000})
    assert said is not None
    assert '"city" is a required property' in said
    assert '$.days[2] = "x": the value is not of type "integer"' in said
    assert "$.days[1] = 0: " in said
    assert len(said) <= checking.LONGEST_WORDS
    assert "y" * 100 not in said
    assert "it is not JSON" in str(await words(checker, SCHEMA, "Sure! Here it is:"))
    assert str(await words(checker, SCHEMA, {"city": "Oslo"}, {})).startswith("choice 1: ")
    many = await words(checker, {"items": {"type": "string"}}, list(range(10_000)))
    assert str(many).count("is not of type") == 5


def branching(depth: int, **others: Any) -> dict[str, Any]:
    defs: dict[str, Any] = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(depth)}
    return {"$ref": "#/$defs/d0", "$defs": defs | {f"d{depth}": {"type": "string"}}, **others}


def exploding() -> dict[str, Any]:
    """Return a schema whose mere compilation takes for ever."""
    defs: dict[str, Any] = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    return {"$ref": "#/$defs/d0", "unevaluatedProperties": False, "$defs": defs | {"d40": {}}}


async def test_patterns_and_depth_are_no_trouble(checker: Checker) -> None:
    begun = time.monotonic()
    assert await words(checker, {"pattern": "(a+)+$"}, orjson.dumps("a" * 10**6 + "b").decode()) is not None
    assert await words(checker, {"pattern": r"^(?!x)(a|aa)+\1$"}, orjson.dumps("a" * 10**4 + "b").decode()) is not None
    deep = {"$ref": "#/$defs/n", "$defs": {"n": {"properties": {"c": {"$ref": "#/$defs/n"}}}}}
    assert await words(checker, deep, '{"c":' * 1_000 + "1" + "}" * 1_000) is None
    assert await words(checker, {"$ref": "#"}, {}) is None
    assert time.monotonic() - begun < 5


async def test_what_is_wrong_need_not_be_said_to_be_known(checker: Checker) -> None:
    said = await words(checker, branching(20), 1)  # for a million reasons
    assert said is not None
    assert "to find out where takes too long" in said
    assert await words(checker, branching(20), '"fits"') is None  # it was not that it could not be checked


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (branching(60), "more time or memory"),
        (exploding(), "more time or memory"),
        ({"$ref": "https://example.com/x.json"}, "Retrieval is disabled"),
        ({"$ref": "file:///etc/hostname"}, "Retrieval is disabled"),
        ({"pattern": "("}, "the schema cannot be used"),
    ],
)
async def test_what_cannot_be_checked_is_known_soon_and_the_next_is_checked(
    checker: Checker, schema: Any, said: str
) -> None:
    begun = time.monotonic()
    with pytest.raises(Unchecked, match=said):
        await words(checker, schema, 1)
    assert time.monotonic() - begun < 30
    assert await words(checker, SCHEMA, {"city": "Oslo"}) is None


def claim(url: str, body: dict[str, Any], **fields: Any) -> Claim:
    return Claim(
        id=UUID(int=1), tenant_id="t", batch_id=None, url=url, provider="p", upstream_model="m", attempt=1, charged=0,
        deadline=None, claimed_at=datetime.now(UTC), route=None, model="m", priority="standard", input_estimate=10,
        output_estimate=0, body=orjson.dumps(body), **fields,
    )  # fmt: skip


@pytest.mark.parametrize(("url", "name"), [("/v1/chat/completions", "messages"), ("/v1/responses", "input")])
async def test_a_job_that_is_asked_again_is_counted_with_what_was_added(url: str, name: str) -> None:
    body = {"model": "m", name: [{"role": "user", "content": "What is the weather?"}]}
    first = claim(url, body, input_bound=tokens.most_input(body, ["m"]))
    assert await continued(first) is first
    answer = "Das weiß niemand. " * 200
    again = await continued(replace(first, repair=orjson.dumps({"answer": answer, "words": "it is not JSON"})))
    asked = orjson.loads(again.body)
    assert [one["content"][:5] for one in asked[name]] == ["What ", "Das w", "Your "]
    assert first.input_bound is not None
    assert again.input_bound is not None
    assert tokens.most_input(asked, ["m"]) <= again.input_bound <= first.input_bound + len(answer.encode()) + 200
    assert again.input_estimate > first.input_estimate + 500
    assert (await continued(replace(first, input_bound=None))).input_bound is None


async def stopped(tasks: list[asyncio.Task[str | None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_tenants_slow_checks_leave_room_for_others(checker: Checker) -> None:
    await asyncio.gather(*(words(checker, SCHEMA, {}, tenant=tenant) for tenant in "tu"))  # both children have begun
    slow = [asyncio.create_task(words(checker, branching(60, title=str(n)), 1)) for n in range(4)]
    behind = asyncio.create_task(words(checker, SCHEMA, {"city": "Oslo"}))
    for _ in range(3):
        assert await asyncio.create_task(words(checker, SCHEMA, {"city": "Oslo"}, tenant="u")) is None
    assert sum(task.done() for task in slow) <= 1
    assert not behind.done()
    await stopped(slow)
    assert await behind is None


async def test_nobody_waits_for_more_than_what_is_under_way(checker: Checker) -> None:
    slow = [
        asyncio.create_task(words(checker, branching(60, title=str(n)), 1, tenant=tenant))
        for n in range(4)
        for tenant in "tv"
    ]
    assert await asyncio.create_task(words(checker, SCHEMA, {"city": "Oslo"}, tenant="u")) is None  # the last to begin
    assert 1 <= sum(task.done() for task in slow) <= 4
    await stopped(slow)
    assert await words(checker, SCHEMA, {"city": "Oslo"}) is None


async def test_a_tenants_schema_that_could_not_be_checked_is_not_tried_again(checker: Checker) -> None:
    schema = branching(60, title="again")
    assert await words(checker, schema, '"fits"') is None
    with pytest.raises(Unchecked):
        await words(checker, schema, 1)
    with pytest.raises(Unchecked, match="more time or memory"):
        await words(checker, schema, '"fits"')
    assert await words(checker, schema, '"fits"', tenant="another") is None
    assert await words(checker, SCHEMA, {"city": "Oslo"}) is None


async def test_a_child_that_died_is_begun_anew_and_knows_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    made = Checker()
    try:
        assert await words(made, SCHEMA, {"city": "Oslo"}) is None
        child = made._free.get_nowait()
        made._free.put_nowait(child)
        assert child._process is not None
        environment = Path(f"/proc/{child._process.pid}/environ")
        if environment.exists():  # not every system has it
            names = {one.split(b"=")[0].decode() for one in environment.read_bytes().split(b"\0")}
            assert names <= {"", "PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LC_CTYPE"}
        child._process.kill()
        assert await words(made, SCHEMA, {}) is not None
    finally:
        await made.close()
