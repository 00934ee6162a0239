"""Budgets over HTTP: made, shown, changed, ended; and what the front door refuses for them before a job is stored."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.api.conftest import Tenant, fetch_row, new_key, new_tenant
from tests.commands import sluice_command
from tests.gateway import Gateway, line, until

BUDGETS = "/v1/admin/budgets"


def asked(**fields: Any) -> dict[str, Any]:
    return {"scope": {}, "window": "month", "limit_usd": "1.00", **fields}


async def make(tenant: Tenant, **fields: Any) -> Any:
    status, made, _ = await tenant.ask("POST", BUDGETS, asked(**fields))
    assert status == 200, made
    return made


async def spend(tenant: Tenant, budget: Any, nanos: int) -> None:
    """Have a budget's present window be spent so far, and this front door know it."""
    query = "UPDATE budget_windows SET spent_nanos = $2 WHERE budget_id = $1::uuid RETURNING id"
    assert await fetch_row(tenant.api, query, budget["id"].removeprefix("budget_"), nanos)
    status, _, _ = await tenant.ask("PATCH", f"{BUDGETS}/{budget['id']}", {"thresholds": [7]})
    assert status == 200


async def stored(tenant: Tenant, job: Any) -> Any:
    query = "SELECT * FROM jobs WHERE id = $1::uuid AND tenant_id = $2"
    return await fetch_row(tenant.api, query, job["id"].removeprefix("job_"), tenant.id)


async def test_a_budget_is_made_shown_changed_and_ended(tenant: Tenant) -> None:
    made = await make(tenant, limit_usd="12.5", timezone="Europe/Berlin")
    assert made["id"].startswith("budget_")
    window = made.pop("present")
    assert made == {
        "id": made["id"], "object": "budget", "tenant_id": tenant.id, "scope": {"tenant_id": tenant.id},
        "window": "month", "timezone": "Europe/Berlin", "limit_usd": "12.50", "kind": "hard", "on_exhausted": "reject",
        "downgrade_to": None, "allow_unpriced": False, "thresholds": [50, 80, 100], "created_at": made["created_at"],
    }  # fmt: skip
    assert window["starts_at"] < made["created_at"] < window["ends_at"]
    assert window["starts_at"][11:] in ("23:00:00Z", "22:00:00Z")  # midnight in Berlin
    assert [window[name] for name in ("spent_usd", "reserved_usd", "remaining_usd")] == ["0.00", "0.00", "12.50"]
    path = f"{BUDGETS}/{made['id']}"
    _, got, _ = await tenant.ask("GET", path)
    assert got == made | {"present": window}

    change = {"limit_usd": 3, "kind": "soft", "thresholds": [90, 10, 90], "allow_unpriced": True}
    status, changed, _ = await tenant.ask("PATCH", path, change)
    assert status == 200, changed
    assert changed == got | {
        "limit_usd": "3.00", "kind": "soft", "thresholds": [10, 90], "allow_unpriced": True,
        "present": window | {"remaining_usd": "3.00"},
    }  # fmt: skip
    _, listed, _ = await tenant.ask("GET", BUDGETS)
    assert listed["data"] == [changed]

    status, ended, _ = await tenant.ask("DELETE", path)
    assert (status, ended) == (200, changed | {"deleted": True})
    for method in ("GET", "PATCH", "DELETE"):
        status, shape, _ = await tenant.ask(method, path, change if method == "PATCH" else None)
        assert (status, shape["error"]["code"]) == (404, "budget_not_found")
    assert (await tenant.ask("GET", BUDGETS))[1]["data"] == []

    _, log, _ = await tenant.ask("GET", f"/v1/admin/audit?object_id={made['id']}")
    assert [entry["action"] for entry in log["data"]] == ["budget.delete", "budget.update", "budget.create"]
    assert (log["data"][1]["before"]["limit_usd"], log["data"][1]["after"]["limit_usd"]) == ("12.50", "3.00")


async def test_a_scope_may_say_several_things(tenant: Tenant) -> None:
    key = await new_key(tenant)
    _, team, _ = await tenant.ask("POST", "/v1/admin/teams", {"name": "search"})
    scope = {
        "tenant_id": tenant.name, "team_id": team["id"], "key_id": key.id, "user": "ann", "tag": "feature=a=b",
        "model": "fast",
    }  # fmt: skip
    made = await make(tenant, scope=scope, window="total")
    assert made["scope"] == scope | {"tenant_id": tenant.id}
    assert made["present"]["ends_at"] is None
    assert made["present"]["starts_at"] == made["created_at"]


async def test_every_fault_is_named(tenant: Tenant) -> None:
    wrong = {
        "scope": {"tenant": "x"}, "window": "year", "limit_usd": "-1", "kind": "firm", "on_exhausted": "wait",
        "timezone": "Europe/Nowhere", "thresholds": [0], "allow_unpriced": 1, "more": 1,
    }  # fmt: skip
    status, shape, _ = await tenant.ask("POST", BUDGETS, wrong)
    assert status == 400
    assert {fault["param"].partition(".")[0].partition("[")[0] for fault in shape["error"]["faults"]} == set(wrong)
    scope = {"tag": "colour=red", "model": "absent"}
    both = asked(scope=scope, on_exhausted="downgrade", downgrade_to="absent/small")
    status, shape, _ = await tenant.ask("POST", BUDGETS, both)
    assert status == 400
    assert [fault["param"] for fault in shape["error"]["faults"]] == ["scope.tag", "scope.model", "downgrade_to"]
    assert "team, feature" in shape["error"]["message"]


@pytest.mark.parametrize(
    "amount",
    [
        "1e3",
        "",
        " 1",
        "1.0000000001",
        "1000000000.01",
        "nan",
        "inf",
        None,
        True,
        [],
        -0.5,
        1e300,
        1e-10,
        "\uff11",
        "99999999999",
    ],
)
async def test_what_is_no_amount(tenant: Tenant, amount: object) -> None:
    status, shape, _ = await tenant.ask("POST", BUDGETS, asked(limit_usd=amount))
    assert (status, shape["error"]["param"]) == (400, "limit_usd")


async def test_amounts_at_the_edge(tenant: Tenant) -> None:
    for given, shown in (
        ("0", "0.00"),
        (0.000000001, "0.000000001"),
        ("1000000000", "1000000000.00"),
        (1e3, "1000.00"),
    ):
        assert (await make(tenant, limit_usd=given))["limit_usd"] == shown


async def test_a_downgrade_says_where_to(tenant: Tenant) -> None:
    for fields in ({"on_exhausted": "downgrade"}, {"downgrade_to": "fast"}):
        status, shape, _ = await tenant.ask("POST", BUDGETS, asked(**fields))
        assert status == 400
        assert "downgrade_to" in shape["error"]["message"]
    status, shape, _ = await tenant.ask("POST", BUDGETS, asked(on_exhausted="downgrade", downgrade_to="other/listed"))
    assert (status, shape["error"]["param"]) == (400, "downgrade_to")  # nobody knows what it costs
    path = f"{BUDGETS}/{(await make(tenant))['id']}"
    status, _, _ = await tenant.ask("PATCH", path, {"on_exhausted": "downgrade"})
    assert status == 400
    _, changed, _ = await tenant.ask("PATCH", path, {"on_exhausted": "downgrade", "downgrade_to": "fast"})
    assert (changed["on_exhausted"], changed["downgrade_to"]) == ("downgrade", "fast")
    assert (await tenant.ask("PATCH", path, {"downgrade_to": None}))[0] == 400
    assert (await tenant.ask("PATCH", path, {"kind": None}))[0] == 400
    assert (await tenant.ask("PATCH", path, {"window": "day"}))[0] == 400
    _, changed, _ = await tenant.ask("PATCH", path, {"on_exhausted": "hold"})
    assert (changed["on_exhausted"], changed["downgrade_to"]) == ("hold", None)


async def test_what_is_another_tenants_is_not_there(tenant: Tenant, neighbour: Tenant) -> None:
    budget = await make(tenant, scope={"user": "ann"})
    key = await new_key(neighbour, role="admin")
    path = f"{BUDGETS}/{budget['id']}"
    for method, body in (("GET", None), ("PATCH", {"limit_usd": "9"}), ("DELETE", None)):
        assert (await key.ask(method, path, body))[0] == 404
    assert (await key.ask("GET", BUDGETS))[1]["data"] == []
    theirs = await new_key(tenant)
    _, team, _ = await tenant.ask("POST", "/v1/admin/teams", {"name": "search"})
    for scope in ({"key_id": theirs.id}, {"team_id": team["id"]}, {"tenant_id": tenant.id, "user": "ann"}):
        assert (await key.ask("POST", BUDGETS, asked(scope=scope)))[0] == 404
    assert (await tenant.ask("GET", path))[1] == budget


async def test_the_budget_of_a_whole_tenant_is_not_for_its_own_admins(tenant: Tenant) -> None:
    key, budget = await new_key(tenant, role="owner"), await make(tenant)
    path = f"{BUDGETS}/{budget['id']}"
    for method, where, body in (
        ("POST", BUDGETS, asked()), ("PATCH", path, {"limit_usd": "9"}), ("DELETE", path, None),
    ):  # fmt: skip
        status, shape, _ = await key.ask(method, where, body)
        assert (status, shape["error"]["code"]) == (403, "bootstrap_required")
    assert (await key.ask("GET", path))[1] == budget
    assert (await key.ask("POST", BUDGETS, asked(scope={"model": "fast"})))[0] == 200


async def test_lists_have_pages(tenant: Tenant) -> None:
    made = [(await make(tenant, scope={"user": str(number)}))["id"] for number in range(5)][::-1]
    _, page, _ = await tenant.ask("GET", f"{BUDGETS}?limit=3")
    assert ([one["id"] for one in page["data"]], page["has_more"]) == (made[:3], True)
    _, page, _ = await tenant.ask("GET", f"{BUDGETS}?limit=3&after={page['last_id']}")
    assert ([one["id"] for one in page["data"]], page["has_more"]) == (made[3:], False)


# ---------------------------------------------------------------------- the door


async def test_without_budgets_nothing_is_counted(tenant: Tenant) -> None:
    _, job, _ = await tenant.ask("POST", "/v1/jobs", line())
    row = await stored(tenant, job)
    assert (row["input_bound"], row["max_cost_nanos"], row["tags"], job["max_cost_usd"]) == (None, None, None, None)


async def test_a_job_under_a_hard_budget_has_its_input_counted(tenant: Tenant) -> None:
    await make(tenant, scope={"user": "ann"})
    await make(tenant, scope={"user": "bob"}, kind="soft")
    bounds = []
    for user in ("ann", "bob", None):
        body = line(text="word " * 1000)["body"] | ({"user": user} if user else {})
        _, job, _ = await tenant.ask("POST", "/v1/jobs", {"body": body})
        bounds.append((await stored(tenant, job))["input_bound"])
    assert 2_500 <= bounds[0] <= 2_600  # five letters and spaces are a token for every two
    assert bounds[1:] == [None, None]


async def test_an_exhausted_budget_that_rejects_refuses_at_the_door(tenant: Tenant, neighbour: Tenant) -> None:
    budget = await make(tenant, limit_usd="0.001", window="hour")
    assert (await tenant.ask("POST", "/v1/jobs", line()))[0] == 202
    headers = {"Idempotency_Key": "twice"}
    _, first, _ = await tenant.ask("POST", "/v1/jobs", line(), **headers)
    batch = {"requests": [line()]}
    _, whole, _ = await tenant.ask("POST", "/v1/batches", batch, **headers | {"Idempotency_Key": "batch"})
    await spend(tenant, budget, 999_999)
    for path, body in (("/v1/jobs", line()), ("/v1/batches", batch), ("/v1/chat/completions", line()["body"])):
        status, shape, answered = await tenant.ask("POST", path, body)
        assert (status, shape["error"]["type"], shape["error"]["code"]) == (429, *["insufficient_quota"] * 2), shape
        assert 1 <= int(answered["Retry-After"]) <= 60
        for said in (budget["id"], "0.000999999", "0.001 USD", "(hour)", budget["present"]["ends_at"][:19]):
            assert said in shape["error"]["message"]
    # What was accepted before is not refused when it is sent again, and a neighbour never noticed.
    _, again, answered = await tenant.ask("POST", "/v1/jobs", line(), **headers)
    assert (again["id"], answered["Idempotent-Replayed"]) == (first["id"], "true")
    _, again, _ = await tenant.ask("POST", "/v1/batches", batch, Idempotency_Key="batch")
    assert again["id"] == whole["id"]
    assert (await neighbour.ask("POST", "/v1/jobs", line()))[0] == 202

    assert (await tenant.ask("PATCH", f"{BUDGETS}/{budget['id']}", {"limit_usd": "0.002"}))[0] == 200
    assert (await tenant.ask("POST", "/v1/jobs", line()))[0] == 202  # at once


async def test_a_budget_that_holds_or_downgrades_refuses_nobody(tenant: Tenant) -> None:
    for fields in ({"on_exhausted": "hold"}, {"on_exhausted": "downgrade", "downgrade_to": "fast"}, {"kind": "soft"}):
        await make(tenant, limit_usd="0", **fields)
    assert (await tenant.ask("POST", "/v1/jobs", line()))[0] == 202


async def test_another_doors_change_is_seen_within_a_second(tenant: Tenant) -> None:
    budget = await make(tenant, limit_usd="1.00")
    assert (await tenant.ask("POST", "/v1/jobs", line()))[0] == 202
    query = "UPDATE budgets SET limit_nanos = 0 WHERE id = $1::uuid RETURNING id"
    await fetch_row(tenant.api, query, budget["id"].removeprefix("budget_"))

    async def submitted() -> int:
        return (await tenant.ask("POST", "/v1/jobs", line()))[0]

    await until(submitted, lambda status: status == 429, seconds=5)


async def test_whose_budget_it_is(tenant: Tenant) -> None:
    _, team, _ = await tenant.ask("POST", "/v1/admin/teams", {"name": "search"})
    mine, other = await new_key(tenant, team_id=team["id"]), await new_key(tenant)

    async def refused(scope: dict[str, str], **fields: Any) -> list[bool]:
        """Return whether each of two keys is refused under a budget of nothing."""
        budget = await make(tenant, scope=scope, limit_usd="0")
        statuses = [(await key.ask("POST", "/v1/jobs", line(**fields)))[0] for key in (mine, other)]
        await tenant.ask("DELETE", f"{BUDGETS}/{budget['id']}")
        assert set(statuses) <= {202, 429}
        return [status == 429 for status in statuses]

    assert await refused({}) == [True, True]
    assert await refused({"key_id": mine.id}) == [True, False]
    assert await refused({"team_id": team["id"]}) == [True, False]
    assert await refused({"team_id": team["id"], "key_id": other.id}) == [False, False]
    assert await refused({"model": "fast"}, model="fast") == [True, True]
    assert await refused({"model": "fast"}) == [False, False]
    assert await refused({"model": "simulated/small"}, model="fast") == [True, True]
    assert await refused({"model": "simulated/small", "key_id": other.id}, model="fast") == [False, True]
    assert await refused({"tag": "feature=chat"}, metadata={"feature": "chat", "other": "x"}) == [True, True]
    assert await refused({"tag": "feature=chat"}, metadata={"feature": "chats"}) == [False, False]
    assert await refused({"tag": "team=chat"}, metadata={"feature": "chat"}) == [False, False]


async def test_tags_are_those_of_the_configuration(tenant: Tenant) -> None:
    metadata = {"feature": 'a "b" {c},\\', "team": "", "other": "x"}
    _, job, _ = await tenant.ask("POST", "/v1/jobs", line(metadata=metadata))
    assert (await stored(tenant, job))["tags"] == ["team=", 'feature=a "b" {c},\\']
    _, job, _ = await tenant.ask("POST", "/v1/jobs", line(metadata={"other": "x"}))
    assert (await stored(tenant, job))["tags"] is None


async def test_a_price_that_nobody_knows(tenant: Tenant) -> None:
    unpriced = line(model="other/listed")
    assert (await tenant.ask("POST", "/v1/jobs", unpriced))[0] == 202
    soft = await make(tenant, kind="soft")
    assert (await tenant.ask("POST", "/v1/jobs", unpriced))[0] == 202
    await tenant.ask("PATCH", f"{BUDGETS}/{soft['id']}", {"kind": "hard"})
    status, shape, _ = await tenant.ask("POST", "/v1/jobs", unpriced)
    assert (status, shape["error"]["code"], shape["error"]["param"]) == (400, "unpriced_model", "body.model")
    assert "other/listed" in shape["error"]["message"]
    assert soft["id"] in shape["error"]["message"]
    _, shape, _ = await tenant.ask("POST", "/v1/chat/completions", unpriced["body"])
    assert (shape["error"]["code"], shape["error"]["param"]) == ("unpriced_model", "model")
    _, shape, _ = await tenant.ask("POST", "/v1/batches", {"requests": [line(), unpriced, line(), unpriced]})
    assert [one["param"] for one in shape["error"]["faults"]] == ["requests[1].body.model", "requests[3].body.model"]
    await tenant.ask("PATCH", f"{BUDGETS}/{soft['id']}", {"allow_unpriced": True})
    assert (await tenant.ask("POST", "/v1/jobs", unpriced))[0] == 202


async def test_what_a_job_may_cost(tenant: Tenant) -> None:
    _, job, _ = await tenant.ask("POST", "/v1/jobs", line(max_cost_usd="0.5"))
    assert job["max_cost_usd"] == "0.50"
    row = await stored(tenant, job)
    assert (row["max_cost_nanos"], row["input_bound"] > 0) == (500_000_000, True)
    assert (await tenant.ask("GET", f"/v1/jobs/{job['id']}"))[1]["max_cost_usd"] == "0.50"
    _, listed, _ = await tenant.ask("GET", "/v1/jobs")
    assert listed["data"][0]["max_cost_usd"] == "0.50"
    await fetch_row(
        tenant.api,
        """UPDATE jobs SET status = 'failed', finished_at = now(), error = '{"code": "x"}'
        WHERE id = $1 RETURNING id""",
        row["id"],
    )
    _, again, _ = await tenant.ask("POST", f"/v1/jobs/{job['id']}/retry")
    assert (again["status"], again["max_cost_usd"]) == ("queued", "0.50")
    assert (await stored(tenant, job))["input_bound"] == row["input_bound"]

    long = line(text="x" * 40_000, max_cost_usd="0.0005")  # 10,000 tokens are 0.001 USD
    status, shape, _ = await tenant.ask("POST", "/v1/jobs", long)
    assert (status, shape["error"]["code"], shape["error"]["param"]) == (400, "max_cost_exceeded", "max_cost_usd")
    assert "0.0005 USD" in shape["error"]["message"]
    status, shape, _ = await tenant.ask("POST", "/v1/jobs", line(model="other/listed", max_cost_usd=1))
    assert (status, shape["error"]["code"]) == (400, "unpriced_model")
    status, shape, _ = await tenant.ask("POST", "/v1/jobs", line(max_cost_usd="much", priority="no"))
    assert (status, len(shape["error"]["faults"])) == (400, 2)


async def test_what_a_batch_may_cost_is_a_budget_of_its_own(tenant: Tenant) -> None:
    asked = {"requests": [line(), line(max_cost_usd="0.1")], "max_cost_usd": "0.02"}
    status, batch, _ = await tenant.ask("POST", "/v1/batches", asked)
    assert (status, batch["max_cost_usd"]) == (202, "0.02")
    assert (await tenant.ask("GET", f"/v1/batches/{batch['id']}"))[1] == batch
    assert (await tenant.ask("GET", "/v1/batches"))[1]["data"] == [batch]
    assert (await tenant.ask("GET", BUDGETS))[1]["data"] == []
    id_ = batch["id"].removeprefix("batch_")
    row = await fetch_row(tenant.api, "SELECT * FROM budgets WHERE batch_id = $1::uuid", id_)
    assert (row["limit_nanos"], row["period"], row["hard"], row["on_exhausted"]) == (
        20_000_000,
        "total",
        True,
        "reject",
    )
    assert (await tenant.ask("GET", f"{BUDGETS}/budget_{row['id'].hex}"))[0] == 404
    bounds = await fetch_row(tenant.api, "SELECT count(input_bound) AS n FROM jobs WHERE batch_id = $1::uuid", id_)
    assert bounds["n"] == 2
    _, plain, _ = await tenant.ask("POST", "/v1/batches", {"requests": [line()]})
    assert plain["max_cost_usd"] is None

    long = line(text="x" * 40_000)
    status, shape, _ = await tenant.ask("POST", "/v1/batches", {"requests": [long] * 3, "max_cost_usd": "0.0025"})
    assert (status, shape["error"]["code"], shape["error"]["param"]) == (400, "max_cost_exceeded", "max_cost_usd")
    mixed = [line(), line(model="other/listed"), long | {"max_cost_usd": "0.0001"}]
    status, shape, _ = await tenant.ask("POST", "/v1/batches", {"requests": mixed, "max_cost_usd": "1"})
    assert [one["param"] for one in shape["error"]["faults"]] == ["requests[1].body.model", "requests[2].max_cost_usd"]


async def test_held_jobs_are_let_go_when_their_budget_changes(tenant: Tenant) -> None:
    for verb, body in (("PATCH", {"limit_usd": "2.00"}), ("DELETE", None)):
        budget = await make(tenant, scope={"user": verb}, on_exhausted="hold")
        body_of_job = line()["body"] | {"user": verb}
        _, job, _ = await tenant.ask("POST", "/v1/jobs", {"body": body_of_job})
        await fetch_row(
            tenant.api,
            "UPDATE jobs SET held_by = $1::uuid, run_at = now() + interval '1 day' WHERE id = $2::uuid RETURNING id",
            budget["id"].removeprefix("budget_"),
            job["id"].removeprefix("job_"),
        )
        assert (await tenant.ask(verb, f"{BUDGETS}/{budget['id']}", body))[0] == 200
        row = await fetch_row(
            tenant.api,
            "SELECT held_by, run_at <= now() AS due FROM jobs WHERE id = $1::uuid",
            job["id"].removeprefix("job_"),
        )
        assert (row["held_by"], row["due"]) == (None, True)


async def test_the_command_line(api: Gateway, tmp_path: Path) -> None:
    tenant = await new_tenant(api)

    async def run(*arguments: str) -> str:
        code, out, err = await sluice_command(api, tmp_path, "budgets", *arguments, key="test-admin-key")
        assert code == 0, err
        return out

    made = orjson.loads(
        await run(
            "create", "2.50", "day", "--tenant", tenant.name, "--user", "ann", "--tag", "feature=chat",
            "--on-exhausted", "downgrade", "--downgrade-to", "fast", "--threshold", "75",
            "--timezone", "Asia/Tokyo", "--json",
        )
    )  # fmt: skip
    assert made["scope"] == {"tenant_id": tenant.id, "user": "ann", "tag": "feature=chat"}
    assert (made["limit_usd"], made["window"], made["thresholds"]) == ("2.50", "day", [75])
    assert "user=ann" in await run("list", "--tenant", tenant.name)
    shown = await run("set", made["id"], "--limit", "4", "--on-exhausted", "hold")
    assert "4.00" in shown
    assert "hold" in shown
    assert orjson.loads(await run("delete", made["id"], "--json"))["deleted"] is True
    assert orjson.loads(await run("list", "--tenant", tenant.name, "--json"))["data"] == []
