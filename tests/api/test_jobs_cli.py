"""`sluice jobs`, `batches` and `budgets` of a tenant of one's choice, and what they say of budgets."""

from pathlib import Path

import orjson

from tests.api.conftest import Tenant, fetch_row
from tests.commands import sluice_command
from tests.gateway import Gateway, line


async def test_the_bootstrap_key_acts_as_the_tenant_that_is_named(api: Gateway, tenant: Tenant, tmp_path: Path) -> None:
    async def run(*arguments: str) -> tuple[int | None, str]:
        code, out, err = await sluice_command(api, tmp_path, *arguments)
        return code, out + err

    _, job, _ = await tenant.ask("POST", "/v1/jobs", line())
    _, batch, _ = await tenant.ask("POST", "/v1/batches", {"requests": [line()]})
    for noun, id_ in (("jobs", job["id"]), ("batches", batch["id"])):
        assert id_ in (await run(noun, "list", "--tenant", tenant.name))[1]
        assert id_ not in (await run(noun, "list"))[1]
        for verb in ("show", "cancel"):
            assert (await run(noun, verb, id_))[0] == 1
            code, said = await run(noun, verb, id_, "--tenant", tenant.name)
            assert (code, id_ in said) == (0, True), said
    code, said = await run("jobs", "retry", job["id"], "--tenant", tenant.name)
    assert (code, "nly a failed or expired" in said) == (1, True), said
    assert (await run("jobs", "retry", "--failed", "--tenant", tenant.name))[1] == "0 jobs run again\n"


async def test_a_held_job_says_by_what_and_until_when(api: Gateway, tenant: Tenant, tmp_path: Path) -> None:
    asked = {"scope": {"tenant_id": tenant.id}, "window": "day", "limit_usd": "1", "on_exhausted": "hold"}
    _, budget, _ = await tenant.ask("POST", "/v1/admin/budgets", asked)
    _, job, _ = await tenant.ask("POST", "/v1/jobs", line())
    shown = ("jobs", "show", job["id"], "--tenant", tenant.name)
    _, out, _ = await sluice_command(api, tmp_path, *shown)
    assert "held" not in out
    await fetch_row(
        api,
        "UPDATE jobs SET held_by = $1::uuid, run_at = '2100-01-01' WHERE id = $2::uuid RETURNING id",
        budget["id"].removeprefix("budget_"),
        job["id"].removeprefix("job_"),
    )
    _, out, err = await sluice_command(api, tmp_path, *shown)
    assert f"held by {budget['id']} until 2100-01-01 00:00:00" in out, err


async def test_a_soft_budget_refuses_nothing_and_says_so(api: Gateway, tenant: Tenant, tmp_path: Path) -> None:
    async def run(*arguments: str) -> str:
        code, out, err = await sluice_command(api, tmp_path, "budgets", *arguments)
        assert code == 0, err
        return out

    soft = ("create", "5", "day", "--tenant", tenant.name, "--kind", "soft")
    assert ["then", "-"] in [words.split() for words in (await run(*soft)).splitlines()]
    made = orjson.loads(await run("create", "6", "day", "--tenant", tenant.name, "--allow-unpriced", "--json"))
    assert made["allow_unpriced"] is True
    kinds = [row.split()[-2:] for row in (await run("list", "--tenant", tenant.name)).splitlines()]
    assert kinds[1:] == [["hard", "reject"], ["soft", "-"]]
    assert orjson.loads(await run("set", made["id"], "--no-allow-unpriced", "--json"))["allow_unpriced"] is False
