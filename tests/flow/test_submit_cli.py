"""`sluice submit`, `jobs` and `batches` against a running gateway: real commands, their files and exit codes."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from redis.asyncio import Redis

from tests.commands import results, sluice_command, start, write
from tests.gateway import CONFIG, Gateway, gateway, line, until

# Another provider whose pool is not running yet.
WITH_LATER = CONFIG.replace("providers:", "providers:\n  later: {kind: simulated, base_url: UPSTREAM/v1}")


@pytest.fixture(scope="module")
async def sluice(
    tmp_path_factory: pytest.TempPathFactory, module_database: str, redis_url: str
) -> AsyncIterator[Gateway]:
    """One gateway for all tests; each submits texts of its own, since the same ones would not be sent again."""
    async with Redis.from_url(redis_url, socket_timeout=10) as client:
        await client.flushdb()
    async with gateway(tmp_path_factory.mktemp("gateway"), module_database, redis_url, config=WITH_LATER) as started:
        yield started


async def test_a_file_is_submitted_and_its_results_are_written_and_a_second_run_repeats_nothing(
    sluice: Gateway, tmp_path: Path
) -> None:
    bad = {"fail": [{"status": 400}]}
    lines = [
        {"prompt": "one"},
        line(text="two", custom_id="second"),
        {"custom_id": "third", **line(text="three", simulate=bad)["body"]},
    ]
    write(tmp_path / "in.jsonl", lines)

    code, out, err = await sluice_command(sluice, tmp_path, "submit", "in.jsonl", "--model", "simulated/small")

    assert code == 2, (out, err)
    written = {each["custom_id"]: each for each in results(tmp_path / "in.results.jsonl")}
    assert set(written) == {"line-1", "second", "third"}
    assert set(written["second"]) == {"id", "custom_id", "response", "error", "cost_usd"}
    assert written["second"]["response"]["body"]["choices"][0]["message"]["content"]
    assert written["third"]["response"] is None
    assert written["third"]["error"]["code"]
    assert "completed  2" in out
    assert "failed     1" in out
    assert "spent before" not in out
    assert (
        f"1 of the failed (third): {written['third']['error']['code']}: {written['third']['error']['message']}\n" in err
    )
    _, listed, _ = await sluice.ask("GET", "/v1/batches")
    assert f"sluice batches retry {listed['data'][0]['id']}\n" in err
    before, calls = (tmp_path / "in.results.jsonl").read_bytes(), len(sluice.calls())

    again, out, err = await sluice_command(sluice, tmp_path, "submit", "in.jsonl", "--model", "simulated/small")

    assert again == 2
    assert "completed  2" in out
    assert (tmp_path / "in.results.jsonl").read_bytes() == before
    assert len(sluice.calls()) == calls
    assert "(spent before)" in out
    assert "nothing new was spent" in err


async def test_what_was_submitted_before_costs_nothing_unless_it_is_submitted_again(
    sluice: Gateway, tmp_path: Path
) -> None:
    write(tmp_path / "in.jsonl", [line(text="spent")] * 2)
    began = len(sluice.calls())

    async def run(*arguments: str) -> tuple[int, bool, int]:
        code, out, err = await sluice_command(sluice, tmp_path, "submit", "in.jsonl", *arguments)
        assert code == 0, (out, err)
        return len(sluice.calls()) - began, "nothing new was spent" in err, len(results(tmp_path / arguments[1]))

    assert await run("--out", "first") == (2, False, 2)
    assert await run("--out", "copy") == (2, True, 2)
    assert await run("--out", "second", "--again") == (4, False, 2)
    assert await run("--out", "second", "--again") == (4, True, 2)
    _, out, _ = await sluice_command(sluice, tmp_path, "submit", "in.jsonl", "--out", "second", "--no-wait")
    assert "nothing new was sent" in out


async def test_a_run_that_was_killed_goes_on_where_it_was(sluice: Gateway, tmp_path: Path) -> None:
    lines = [line(text=f"text {n}") for n in range(100)] + [line(text=f"later {n}", model="idle/x") for n in range(100)]
    write(tmp_path / "in.jsonl", lines)
    out = tmp_path / "in.results.jsonl"
    calls = len(sluice.calls())
    _, before, _ = await sluice.ask("GET", "/v1/batches")

    async def lines_written() -> int:
        return out.read_bytes().count(b"\n") if out.exists() else 0

    killed = await start(sluice, tmp_path, "submit", "in.jsonl")
    await until(lines_written)
    killed.kill()
    await killed.communicate()
    with out.open("ab") as file:
        file.write(b'{"custom_id": "torn')

    interrupted = await start(sluice, tmp_path, "submit", "in.jsonl")
    assert interrupted.stderr is not None
    assert await asyncio.wait_for(interrupted.stderr.readline(), 30) == b"Resuming: 1 of 1 batches were submitted.\n"
    await until(lines_written, lambda count: count == 100)
    interrupted.send_signal(signal.SIGINT)
    _, told = await asyncio.wait_for(interrupted.communicate(), 30)
    assert interrupted.returncode == 130
    assert b"same command" in told

    await sluice.start("pool of idle", "idle")
    code, shown, err = await sluice_command(sluice, tmp_path, "submit", "in.jsonl")

    assert code == 0, (shown, err)
    assert Counter(each["custom_id"] for each in results(out)) == Counter(f"line-{n}" for n in range(1, 201))
    assert len(sluice.calls()) == calls + 200
    _, listed, _ = await sluice.ask("GET", "/v1/batches")
    assert len(listed["data"]) == len(before["data"]) + 1


async def test_a_run_survives_a_restart_of_the_gateway(sluice: Gateway, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [line(text="restart"), line(text="restart", model="later/x")])
    out = tmp_path / "in.results.jsonl"
    before = len(sluice.calls())

    async def lines_written() -> int:
        return out.read_bytes().count(b"\n") if out.exists() else 0

    running = await start(sluice, tmp_path, "submit", "in.jsonl")
    await until(lines_written)
    await sluice.kill("api")
    await sluice.start("pool of later", "later")
    await until(lambda: asyncio.sleep(0, len(sluice.calls())), lambda calls: calls == before + 2)
    await sluice.start("api")

    _, err = await asyncio.wait_for(running.communicate(), 60)

    assert running.returncode == 0, err
    assert Counter(each["custom_id"] for each in results(out)) == Counter(["line-1", "line-2"])


async def test_a_file_with_a_fault_is_not_sent(sluice: Gateway, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [line(), {"question": "?"}])
    _, before, _ = await sluice.ask("GET", "/v1/batches")

    code, _, err = await sluice_command(sluice, tmp_path, "submit", "in.jsonl")

    assert code == 1
    assert "line 2: has none of" in err
    assert "Traceback" not in err
    assert not (tmp_path / "in.results.jsonl").exists()
    _, listed, _ = await sluice.ask("GET", "/v1/batches")
    assert listed == before


async def test_submitting_without_waiting_and_collecting_later(sluice: Gateway, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [line(text="collected later")] * 3)

    code, out, _ = await sluice_command(sluice, tmp_path, "submit", "in.jsonl", "--no-wait", "--out", "r.jsonl")

    assert code == 0
    batch = next(word for word in out.split() if word.startswith("batch_"))
    code, out, _ = await sluice_command(sluice, tmp_path, "submit", "in.jsonl", "--out", "r.jsonl")
    assert code == 0
    assert len(results(tmp_path / "r.jsonl")) == 3
    code, out, _ = await sluice_command(sluice, tmp_path, "batches", "show", batch, "--json")
    assert orjson.loads(out)["request_counts"]["completed"] == 3


async def test_jobs_that_failed_run_again_and_their_new_results_follow(sluice: Gateway, tmp_path: Path) -> None:
    once = {"fail": [{"status": 400}]}
    write(tmp_path / "in.jsonl", [line(simulate={**once, "key": f"k{n}"}) for n in range(2)] + [line()])
    code, out, err = await sluice_command(sluice, tmp_path, "submit", "in.jsonl", "--json")
    assert code == 2, err
    batch = orjson.loads(out)["batches"][0]

    code, out, err = await sluice_command(sluice, tmp_path, "jobs", "retry", "--failed", "--batch", batch, "--json")

    assert (code, orjson.loads(out)["retried"]) == (0, 2), err
    code, _, err = await sluice_command(sluice, tmp_path, "submit", "in.jsonl")
    assert code == 0, err
    answered = Counter(each["custom_id"] for each in results(tmp_path / "in.results.jsonl") if each["error"] is None)
    assert answered == Counter(["line-1", "line-2", "line-3"])


async def test_jobs_and_batches_are_listed_shown_and_cancelled(sluice: Gateway, tmp_path: Path) -> None:
    done = await sluice.submit(custom_id="mine", text="secret question")
    await sluice.ended(done)
    later = await sluice.submit(run_at="2100-01-01T00:00:00Z")

    _, out, _ = await sluice_command(sluice, tmp_path, "jobs", "list")
    assert done in out
    assert later in out
    assert "mine" in out
    _, out, _ = await sluice_command(sluice, tmp_path, "jobs", "list", "--status", "queued", "--json")
    assert [job["id"] for job in orjson.loads(out)["data"]] == [later]
    _, out, _ = await sluice_command(sluice, tmp_path, "jobs", "show", done, "--result")
    assert "completed" in out
    assert '"choices"' in out
    assert "secret question" not in out.split('"choices"')[0]
    _, out, _ = await sluice_command(sluice, tmp_path, "jobs", "show", done, "--json")
    assert orjson.loads(out)["attempts_made"][0]["status"] == "completed"
    code, out, _ = await sluice_command(sluice, tmp_path, "jobs", "cancel", later)
    assert (code, "cancelled" in out) == (0, True)
    code, _, err = await sluice_command(sluice, tmp_path, "jobs", "retry", done)
    assert (code, "only a failed or expired" in err.lower()) == (1, True)


async def test_a_file_that_was_uploaded_becomes_a_batch_and_its_results_are_written(
    sluice: Gateway, tmp_path: Path
) -> None:
    async def run(*arguments: str) -> tuple[int | None, str, str]:
        return await sluice_command(sluice, tmp_path, *arguments)

    write(tmp_path / "in.jsonl", [{**line(text=f"uploaded {n}"), "custom_id": str(n)} for n in range(3)])
    file = orjson.loads((await run("files", "upload", "in.jsonl", "--json"))[1])["id"]
    code, out, err = await run(
        "batches", "create", file, "--endpoint", "/v1/chat/completions", "--window", "24h", "--json"
    )
    made = orjson.loads(out)
    assert (code, made["endpoint"], made["completion_window"]) == (0, "/v1/chat/completions", "24h"), err
    code, shown, err = await run("batches", "watch", made["id"])
    assert code == 0, err
    assert (file in shown, "output file   file_" in shown) == (True, True)
    code, out, err = await run("batches", "results", made["id"])
    assert (code, {orjson.loads(text)["custom_id"] for text in out.splitlines()}) == (0, {"0", "1", "2"}), err
    assert "cursor" not in out
    assert (await run("batches", "results", made["id"], "--out", "out.csv"))[0] == 0
    assert (tmp_path / "out.csv").read_text().count("completed") == 3
    assert (await run("batches", "results", f"{made['id'][:-1]}_", "--out", "none"))[0] == 1
    assert not (tmp_path / "none").exists()


async def test_a_batch_that_failed_its_validation_says_what_was_wrong(sluice: Gateway, tmp_path: Path) -> None:
    async def run(*arguments: str) -> tuple[int | None, str, str]:
        return await sluice_command(sluice, tmp_path, *arguments)

    write(tmp_path / "bad.jsonl", [line()] * 2 + [{"body": {"model": "simulated/small", "messages": []}}] * 23)
    file = orjson.loads((await run("files", "upload", "bad.jsonl", "--json"))[1])["id"]
    batch = orjson.loads((await run("batches", "create", file, "--json"))[1])["id"]

    code, out, _ = await run("batches", "watch", batch)

    assert code == 2
    assert "\nline 3: body.messages: must be a non-empty list\n" in out
    assert out.count("\nline ") == 20
    assert out.endswith("\n… and 3 more\n")
    assert (await run("batches", "show", batch))[1] == out
    for verb in ("cancel", "retry"):
        code, _, err = await run("batches", verb, batch)
        assert (code, "there is nothing to do" in err) == (1, True), err


async def test_a_refusal_is_one_line_without_a_traceback(sluice: Gateway, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [line(text="refused", model="unknown")])
    code, _, err = await sluice_command(sluice, tmp_path, "submit", "in.jsonl")
    assert (code, (tmp_path / "in.results.jsonl").exists()) == (1, False), err
    code, out, err = await sluice_command(sluice, tmp_path, "jobs", "list", key="wrong")
    assert (code, out) == (1, "")
    assert err.startswith("sluice: ")
    assert err.count("\n") == 1
