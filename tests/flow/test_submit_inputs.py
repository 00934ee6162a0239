"""`sluice submit` of CSV files and folders, its results in either form and order, its summary; one gateway for all."""

import asyncio
import csv
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from redis.asyncio import Redis

from tests.commands import results, sluice_command, start, write
from tests.gateway import CONFIG, Gateway, gateway, line, until

MODEL = ("--model", "simulated/small")
PACED = CONFIG.replace(
    "providers:", "providers:\n  paced: {kind: simulated, base_url: UPSTREAM/v1, limits: {rpm: 1200}}"
)


@pytest.fixture(scope="module")
async def running(
    tmp_path_factory: pytest.TempPathFactory, module_database: str, redis_url: str
) -> AsyncIterator[Gateway]:
    async with Redis.from_url(redis_url, socket_timeout=10) as client:
        await client.flushdb()
    async with gateway(tmp_path_factory.mktemp("gateway"), module_database, redis_url, config=PACED) as started:
        await started.start("pool of paced", "paced")
        yield started


def documents(folder: Path, count: int) -> Path:
    for number in range(count):
        path = folder / f"part {number % 2}" / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"document number {number} of {folder}")
    return folder


async def test_csv_in_and_csv_out(running: Gateway, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('id;words;text\nfirst;5;"Hello\nthere, {you}"\nsecond;6;"say ""hi"""\n')
    prompt = r"Use {words} words {{}}:\n{text}"

    arguments = ("submit", "in.csv", "--prompt", prompt, "--system", "brief", "--max-tokens", "30", *MODEL)
    code, out, err = await sluice_command(running, tmp_path, *arguments, "--out", "out.csv", "--ordered")

    assert code == 0, (out, err)
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["custom_id"], row["status"], row["error"]) for row in rows] == [
        ("first", "completed", ""),
        ("second", "completed", ""),
    ]
    assert rows[0]["output"].endswith("beginning with: Use 5 words {}: Hello there, {you}")
    assert rows[1]["output"].endswith('beginning with: Use 6 words {}: say "hi"')
    assert all(int(row["input_tokens"]) > 0 and int(row["output_tokens"]) > 0 for row in rows)
    assert "completed  2" in out
    before, calls = (tmp_path / "out.csv").read_bytes(), len(running.calls())
    code, out, err = await sluice_command(running, tmp_path, *arguments, "--out", "out.csv", "--ordered")
    assert (code, "nothing new was spent" in err) == (0, True), (out, err)
    assert (tmp_path / "out.csv").read_bytes() == before
    assert len(running.calls()) == calls


async def test_a_folder_whose_run_was_killed_goes_on_and_repeats_nothing(running: Gateway, tmp_path: Path) -> None:
    documents(tmp_path / "docs", 40)
    out = tmp_path / "docs.results.jsonl"
    command = ("submit", "docs/", "--prompt", "Summarize {path}: {text}", "--model", "paced/small", "--ordered")
    calls = len(running.calls())

    async def lines_written() -> int:
        return out.read_bytes().count(b"\n") if out.exists() else 0

    killed = await start(running, tmp_path, *command)
    await until(lines_written)
    killed.kill()
    await killed.communicate()
    assert await lines_written() < 40
    code, shown, err = await sluice_command(running, tmp_path, *command)

    assert code == 0, (shown, err)
    assert "Resuming: 1 of 1 batches were submitted." in err
    names = [str(path.relative_to(tmp_path / "docs")) for path in (tmp_path / "docs").rglob("*.txt")]
    assert [each["custom_id"] for each in results(out)] == sorted(names)
    assert len(running.calls()) == calls + 40
    (tmp_path / "docs" / "part 0" / "0.txt").write_text("changed")
    code, _, err = await sluice_command(running, tmp_path, *command)
    assert (code, "holds the results of other lines or options" in err) == (1, True)
    assert len(running.calls()) == calls + 40


async def test_a_folder_s_answers_are_written_as_texts(running: Gateway, tmp_path: Path) -> None:
    documents(tmp_path / "docs", 2)

    arguments = ("submit", "docs", "--prompt", "Text of {name}", *MODEL, "--out", "answers/")
    code, out, err = await sluice_command(running, tmp_path, *arguments)

    assert code == 0, (out, err)
    assert len(results(tmp_path / "answers" / "results.jsonl")) == 2
    assert (tmp_path / "answers" / "part 1" / "1.txt.txt").read_text().endswith("Text of 1.txt")


async def test_results_are_put_in_the_input_s_order_and_a_program_gets_the_summary(
    running: Gateway, tmp_path: Path
) -> None:
    late, bad = {"latency_ms": 400}, {"fail": [{"status": 400}]}
    lines = [
        line(text="ordered first", simulate=late),
        line(text="ordered second", model="simulated/large"),
        line(text="ordered third", simulate=bad),
    ]
    write(tmp_path / "in.jsonl", lines)

    code, out, err = await sluice_command(running, tmp_path, "submit", "in.jsonl", "--ordered", "--json")

    assert code == 2, (out, err)
    assert [each["custom_id"] for each in results(tmp_path / "in.results.jsonl")] == ["line-1", "line-2", "line-3"]
    shown = orjson.loads(out)
    assert {name: shown[name] for name in ("requests", "completed", "failed", "cancelled", "expired")} == {
        "requests": 3,
        "completed": 2,
        "failed": 1,
        "cancelled": 0,
        "expired": 0,
    }
    assert [(one["model"], one["completed"]) for one in shown["models"]] == [("large", 1), ("small", 1)]
    assert [(one["jobs"], one["custom_id"]) for one in shown["errors"]] == [(1, "line-3")]
    assert shown["jobs_per_second"] > 0
    assert shown["results"] == "in.results.jsonl"
    assert len(shown["batches"]) == 1


async def test_what_failed_runs_again_and_its_result_follows(running: Gateway, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [line(text="again", simulate={"fail": [{"status": 400}]}), line(text="once")])
    code, out, _ = await sluice_command(running, tmp_path, "submit", "in.jsonl", "--out", "out.csv", "--json")
    assert code == 2
    batch = orjson.loads(out)["batches"][0]

    code, out, err = await sluice_command(running, tmp_path, "batches", "retry", batch)

    assert (code, batch in out) == (0, True), err
    code, _, err = await sluice_command(running, tmp_path, "batches", "watch", batch)
    assert code == 0, err
    assert "Running: 2/2" in err
    code, out, err = await sluice_command(running, tmp_path, "submit", "in.jsonl", "--out", "out.csv", "--json")
    assert (code, orjson.loads(out)["errors"]) == (0, []), err
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = [(row["custom_id"], row["status"]) for row in csv.DictReader(file)]
    assert Counter(rows) == Counter([("line-1", "failed"), ("line-1", "completed"), ("line-2", "completed")])


async def test_every_input_is_estimated_and_nothing_is_sent(running: Gateway, tmp_path: Path) -> None:
    documents(tmp_path / "docs", 3)
    (tmp_path / "in.csv").write_text("prompt\nestimated one\nestimated two\n")
    _, before, _ = await running.ask("GET", "/v1/batches")

    ran = await asyncio.gather(
        sluice_command(running, tmp_path, "submit", "docs", "--prompt", "{text}", *MODEL, "--estimate", "--json"),
        sluice_command(running, tmp_path, "submit", "in.csv", *MODEL, "--estimate"),
    )

    assert [code for code, _, _ in ran] == [0, 0], ran
    estimated = orjson.loads(ran[0][1])
    assert (estimated["jobs"], [one["target"] for one in estimated["by_target"]]) == (3, ["simulated/small"])
    assert estimated["input_tokens"] > 0
    assert ran[1][1].splitlines()[1].split()[:2] == ["simulated/small", "2"]
    _, after, _ = await running.ask("GET", "/v1/batches")
    assert after == before


async def test_schema_deadline_and_cost_reach_the_jobs(running: Gateway, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("prompt\nbounded\n")
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
    (tmp_path / "answer.json").write_bytes(orjson.dumps(schema))

    options = ("--schema", "answer.json", "--deadline", "1h", "--max-cost", "2.5", "--max-tokens", "50", "--json")
    code, out, err = await sluice_command(running, tmp_path, "submit", "in.csv", *MODEL, *options)

    assert code == 0, (out, err)
    (written,) = results(tmp_path / "in.results.jsonl")
    assert set(orjson.loads(written["response"]["body"]["choices"][0]["message"]["content"])) == {"answer"}
    batch = orjson.loads(out)["batches"][0]
    _, found, _ = await running.ask("GET", f"/v1/batches/{batch}")
    assert float(found["max_cost_usd"]) == 2.5
    _, jobs, _ = await running.ask("GET", f"/v1/jobs?batch_id={batch}")
    assert jobs["data"][0]["deadline"] is not None


async def test_submitting_without_waiting_and_watching_later(running: Gateway, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("prompt\n" + "".join(f"watched {number}\n" for number in range(10)))
    arguments = ("submit", "in.csv", "--model", "paced/small", "--no-wait", "--json")
    code, out, err = await sluice_command(running, tmp_path, *arguments)
    assert code == 0, err
    shown = orjson.loads(out)
    assert (shown["requests"], shown["submitted_before"]) == (10, False)

    code, out, err = await sluice_command(running, tmp_path, "batches", "watch", shown["batches"][0], "--json")

    assert (code, orjson.loads(out)["request_counts"]["completed"]) == (0, 10), err
