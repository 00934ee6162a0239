"""Batches of files: validated with a line for every fault, run, and read back while and after they run."""

import asyncio
import io
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import orjson
import pytest

from shared import ids
from tests.conftest import fresh_database
from tests.gateway import Gateway, gateway, line, until

CONFIG = """
providers:
  simulated: {kind: simulated, base_url: UPSTREAM/v1, timeout: 30s, models: {small: {price: {input: 1, output: 2}}}}
  idle: {kind: simulated, base_url: UPSTREAM/v1}
models:
  fast: {targets: [simulated/small]}
webhooks: {allow_http: true, allow_private_networks: ["127.0.0.0/8"]}
"""
MOST_LINES = 300


@pytest.fixture(scope="module")
async def sluice(
    tmp_path_factory: pytest.TempPathFactory, database_url: str, template: str, redis_url: str
) -> AsyncIterator[Gateway]:
    env = {"SLUICE_MAX_FILE_LINES": str(MOST_LINES), "SLUICE_MAX_BODY_BYTES": "200000"}
    directory = tmp_path_factory.mktemp("batch_files")
    async with (
        fresh_database(database_url, template) as database,
        gateway(directory, database, redis_url, config=CONFIG, env=env) as running,
    ):
        yield running


def request(**options: Any) -> dict[str, Any]:
    return {"method": "POST", "url": "/v1/chat/completions", **line(**options)}


def jsonl(lines: Iterable[Any]) -> bytes:
    return b"".join(orjson.dumps(one) + b"\n" for one in lines)


async def upload(sluice: Gateway, content: bytes, *, purpose: str = "batch") -> str:
    form = aiohttp.FormData()
    form.add_field("purpose", purpose)
    form.add_field("file", io.BytesIO(content), filename="lines.jsonl")
    async with sluice.client.post(f"{sluice.url}/v1/files", data=form) as answer:
        file = await answer.json()
        assert answer.status == 200, file
        return str(file["id"])


async def create(sluice: Gateway, content: bytes, **options: Any) -> Any:
    asked = {"input_file_id": await upload(sluice, content), "completion_window": "24h", **options}
    status, batch, _ = await sluice.ask("POST", "/v1/batches", asked)
    assert status == 202, batch
    return batch


async def look(sluice: Gateway, id_: str) -> Any:
    status, batch, _ = await sluice.ask("GET", f"/v1/batches/{id_}")
    assert status == 200, batch
    return batch


async def ended(sluice: Gateway, id_: str) -> Any:
    final = ("completed", "failed", "expired", "cancelled")
    return await until(lambda: look(sluice, id_), lambda batch: batch["status"] in final, what=sluice.logs()[-2000:])


async def read(sluice: Gateway, file: str, query: str = "") -> list[Any]:
    async with sluice.client.get(f"{sluice.url}/v1/files/{file}/content{query}") as answer:
        content = await answer.read()
        assert answer.status == 200, content
    _, shown, _ = await sluice.ask("GET", f"/v1/files/{file}")
    assert query or shown["bytes"] == len(content)  # it is reckoned, not counted
    return [orjson.loads(one) for one in content.splitlines()]


async def test_a_file_becomes_a_batch_whose_lines_are_in_one_of_two_files(sluice: Gateway) -> None:
    odd = 'quo"te\\back\u2028 \x07 \x7f é 😀'
    failing = {"fail": [{"status": 400, "message": 'no "good"\n\x01'}]}
    lines = [request(custom_id=f"doc-{number}", text=str(number)) for number in range(40)]
    lines[7] = request(custom_id="bad", simulate=failing)
    lines[9] = request(custom_id=odd, text="odd")
    batch = await create(sluice, jsonl(lines), endpoint="/v1/chat/completions", metadata={"k": "v"})
    assert batch["input_file_id"].startswith("file_")
    assert batch["status"] in ("validating", "in_progress")
    done = await ended(sluice, batch["id"])
    assert done["status"] == "completed"
    assert (done["request_counts"]["total"], done["request_counts"]["completed"]) == (40, 39)
    assert done["expires_at"] - done["created_at"] == 86_400
    assert float(done["cost_usd"]) > 0
    output, errors = await read(sluice, done["output_file_id"]), await read(sluice, done["error_file_id"])
    assert {one["custom_id"] for one in output} == {one["custom_id"] for one in lines} - {"bad"}
    assert {tuple(one) for one in (*output, *errors)} == {("id", "custom_id", "response", "error")}
    assert [(one["custom_id"], one["response"]) for one in errors] == [("bad", None)]
    assert errors[0]["error"]["code"] == "invalid_request"
    assert output[0]["response"]["status_code"] == 200
    ordered = await read(sluice, done["output_file_id"], "?order=input")
    assert [one["custom_id"] for one in ordered] == [one["custom_id"] for one in lines if one["custom_id"] != "bad"]


async def test_the_output_is_there_while_the_batch_runs(sluice: Gateway) -> None:
    lines = [request(custom_id="quick"), request(custom_id="never", model="idle/any")]
    batch = await create(sluice, jsonl(lines), endpoint="/v1/chat/completions")
    running = await until(lambda: look(sluice, batch["id"]), lambda one: one["request_counts"]["completed"] == 1)
    assert running["status"] == "in_progress"
    assert running["error_file_id"] is None
    assert [one["custom_id"] for one in await read(sluice, running["output_file_id"])] == ["quick"]
    await sluice.ask("POST", f"/v1/batches/{batch['id']}/cancel")
    done = await ended(sluice, batch["id"])
    assert done["status"] == "cancelled"
    assert [one["error"]["code"] for one in await read(sluice, done["error_file_id"])] == ["cancelled"]


GOOD = orjson.dumps(request(custom_id="a"))
BAD = {
    "not JSON": (GOOD + b"\n\n{'a': 1}\n", [("invalid_json_line", 3)]),
    "half a line": (GOOD + b"\n" + GOOD[:-20], [("invalid_json_line", 2)]),
    "not UTF-8": (b'{"custom_id": "\xff\xfe"}\n', [("invalid_json_line", 1)]),
    "UTF-16": (GOOD.decode().encode("utf-16"), [("invalid_json_line", 1)]),
    "not an object": (b"[1]\n17\nnull\n", [("invalid_json_line", number) for number in (1, 2, 3)]),
    "an archive": (b"PK\x03\x04" + bytes(range(11, 256)) * 40, [("invalid_json_line", 1)]),
    "a line too long": (GOOD + b'\n{"a": "' + b"x" * 300_000 + b'"}\n', [("invalid_json_line", 2)]),
    "too deep": (b'{"body":' + b"[" * 50_000 + b"\n", [("invalid_json_line", 1)]),
    "twice": (GOOD + b"\r\n" + GOOD + b"\r\n", [("duplicate_custom_id", 2)]),
    "another route": (orjson.dumps({**request(), "url": "/v1/embeddings"}), [("url_mismatch", 1)]),
    "no route": (orjson.dumps({**request(), "url": "/v1/nothing"}), [("url_mismatch", 1)]),
    "another method": (orjson.dumps({**request(), "method": "GET"}), [("invalid_request", 1)]),
    "no model": (orjson.dumps({"url": "/v1/chat/completions", "body": {"messages": []}}), 2 * [("invalid_request", 1)]),
    "an unknown model": (jsonl([request(model="nobody/x")]), [("model_not_found", 1)]),
    "NUL": (b'{"body": {"model": "fast", "a": "\\u0000"}}', [("invalid_request", 1)]),
    "nothing": (b"", [("empty_file", None)]),
    "blank lines": (b"\xef\xbb\xbf\r\n\n  \n", [("empty_file", None)]),
    "faults without end": (b"{}\n" * (MOST_LINES + 1), None),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_file_fails_with_its_lines(sluice: Gateway, name: str) -> None:
    content, expected = BAD[name]
    batch = await ended(sluice, (await create(sluice, content, endpoint="/v1/chat/completions"))["id"])
    assert (batch["status"], batch["request_counts"]["total"]) == ("failed", 0)
    assert (batch["output_file_id"], batch["error_file_id"]) == (None, None)
    assert batch["failed_at"] is not None
    found = [(one["code"], one["line"]) for one in batch["errors"]["data"]]
    if expected is None:
        assert len(found) == 100  # no more are listed
    else:
        assert found == expected
    _, listed, _ = await sluice.ask("GET", f"/v1/jobs?batch_id={batch['id']}")
    assert listed["data"] == []


async def test_more_lines_than_a_file_may_have(sluice: Gateway) -> None:
    lines = jsonl(request(custom_id=str(number)) for number in range(MOST_LINES + 1))
    batch = await ended(sluice, (await create(sluice, lines))["id"])
    assert [(one["code"], one["line"]) for one in batch["errors"]["data"]] == [("too_many_tasks", None)]


async def test_a_byte_order_mark_carriage_returns_and_blank_lines_do_not_matter(sluice: Gateway) -> None:
    content = b"\xef\xbb\xbf" + GOOD + b"\r\n\r\n" + orjson.dumps(request(custom_id="b"))
    batch = await ended(sluice, (await create(sluice, content))["id"])
    assert (batch["status"], batch["request_counts"]["completed"]) == ("completed", 2)


async def test_what_is_no_file_for_a_batch(sluice: Gateway) -> None:
    image = await upload(sluice, b"x", purpose="vision")
    for file, code in ((f"file_{'0' * 32}", "file_not_found"), (image, "invalid_file_purpose"), ("x", None)):
        status, answer, _ = await sluice.ask("POST", "/v1/batches", {"input_file_id": file})
        assert (status, answer["error"]["param"]) == (400, "input_file_id")
        assert code in (None, answer["error"]["code"])
    for asked in ({}, {"input_file_id": image, "requests": [line()]}, {"requests": []}):
        assert (await sluice.ask("POST", "/v1/batches", asked))[0] == 400


async def test_defaults_are_for_lines_that_say_nothing(sluice: Gateway) -> None:
    bare = {"body": {"messages": [{"role": "user", "content": "x"}]}}
    own = {
        "body": {"model": "simulated/small", "messages": [{"role": "system", "content": "mine"}]},
        "priority": "bulk",
    }
    defaults = {
        "model": "fast",
        "priority": "interactive",
        "system": "Be brief.",
        "max_cost_usd": "0.5",
        "deadline": 60,
    }
    batch = await create(sluice, jsonl([bare, own]), defaults=defaults)
    await ended(sluice, batch["id"])
    _, listed, _ = await sluice.ask("GET", f"/v1/jobs?batch_id={batch['id']}")
    mine, left = listed["data"]
    assert [(one["model"], one["priority"]) for one in (left, mine)] == [
        ("fast", "interactive"),
        ("simulated/small", "bulk"),
    ]
    assert [one["max_cost_usd"] for one in (left, mine)] == ["0.50", "0.50"]
    assert left["deadline"] is not None
    assert left["usage"]["prompt_tokens"] > mine["usage"]["prompt_tokens"]  # the system prompt went along


async def test_what_is_not_done_within_the_window_expires(sluice: Gateway) -> None:
    lines = [request(custom_id="done"), request(custom_id="late", model="idle/any")]
    batch = await ended(sluice, (await create(sluice, jsonl(lines), completion_window="6s"))["id"])
    assert batch["status"] == "expired"
    assert batch["expired_at"] is not None
    assert batch["request_counts"] == {"total": 2, "completed": 1, "failed": 0, "cancelled": 0, "expired": 1}
    assert [one["error"]["code"] for one in await read(sluice, batch["error_file_id"])] == ["batch_expired"]


async def test_failed_lines_run_again(sluice: Gateway) -> None:
    lines = [request(custom_id="x", simulate={"fail": [{"status": 400}]}), request(custom_id="y")]
    batch = await ended(sluice, (await create(sluice, jsonl(lines)))["id"])
    assert batch["request_counts"]["failed"] == 1
    status, again, _ = await sluice.ask("POST", f"/v1/batches/{batch['id']}/retry")
    assert status == 202
    assert (again["status"], again["request_counts"]["failed"]) == ("in_progress", 0)
    batch = await ended(sluice, batch["id"])
    _, listed, _ = await sluice.ask("GET", f"/v1/jobs?batch_id={batch['id']}")
    assert [one["attempts"] for one in listed["data"]] == [1, 2]


async def test_events_tell_results_and_progress_and_go_on_where_they_stopped(sluice: Gateway) -> None:
    lines = [request(custom_id=str(number)) for number in range(20)]
    batch = await create(sluice, jsonl(lines))
    url, seen = f"{sluice.url}/v1/batches/{batch['id']}/events", []
    async with sluice.client.get(url) as answer:
        assert answer.content_type == "text/event-stream"
        text = (await answer.read()).decode()
    events = [dict(row.split(": ", 1) for row in one.splitlines()) for one in text.strip().split("\n\n")]
    seen = [orjson.loads(one["data"])["custom_id"] for one in events if one["event"] == "result"]
    assert sorted(seen, key=int) == [one["custom_id"] for one in lines]
    assert events[-1]["event"] == "batch.completed"
    fifth = [one["id"] for one in events if "id" in one][4]
    async with sluice.client.get(url, headers={"Last-Event-ID": fifth}) as answer:
        assert (await answer.read()).count(b"event: result") == 15


async def test_cancelling_while_it_is_validated_or_runs_ends_it(sluice: Gateway) -> None:
    lines = jsonl(request(custom_id=str(number), model="idle/any") for number in range(MOST_LINES))
    made = await asyncio.gather(*(create(sluice, lines) for _ in range(4)))
    for batch in made:
        status, _, _ = await sluice.ask("POST", f"/v1/batches/{batch['id']}/cancel")
        assert status == 200
    for batch in made:
        done = await ended(sluice, batch["id"])
        assert done["status"] == "cancelled"
        assert done["request_counts"]["cancelled"] == done["request_counts"]["total"]


async def test_a_budget_of_its_own_that_cannot_do_refuses_the_batch(sluice: Gateway) -> None:
    batch = await ended(sluice, (await create(sluice, jsonl([request()]), max_cost_usd="0.000000001"))["id"])
    assert [one["code"] for one in batch["errors"]["data"]] == ["max_cost_exceeded"]
    assert batch["max_cost_usd"] == "0.000000001"


async def test_a_front_door_that_dies_while_it_validates_is_taken_over(
    tmp_path: Path, database: str, redis: str
) -> None:
    lines = jsonl(request(custom_id=str(number), model="idle/any") for number in range(20_000))
    async with gateway(tmp_path, database, redis, parts=("upstream", "api"), config=CONFIG) as sluice:
        batch = await create(sluice, lines)
        await until(lambda: look(sluice, batch["id"]))
        await sluice.kill("api")
        await sluice.start("api")
        running = await until(lambda: look(sluice, batch["id"]), lambda one: one["status"] != "validating", seconds=120)
        assert running["request_counts"]["total"] == 20_000


async def test_a_file_whose_content_is_not_all_there_makes_no_batch(sluice: Gateway) -> None:
    file = await upload(sluice, jsonl(request(text="x" * 100_000) for _ in range(30)))
    connection = await asyncpg.connect(sluice.env["SLUICE_DATABASE_URL"])
    try:
        await connection.execute("DELETE FROM file_parts WHERE file_id = $1 AND number > 0", ids.parse("file", file))
    finally:
        await connection.close()
    status, batch, _ = await sluice.ask("POST", "/v1/batches", {"input_file_id": file})
    assert status == 202
    errors = (await ended(sluice, batch["id"]))["errors"]["data"]
    assert [(one["code"], one["param"]) for one in errors] == [("file_content_missing", "input_file_id")]
