"""`sluice usage` and `sluice usage import` against a running gateway."""

import csv
import io
from pathlib import Path
from typing import Any

import orjson

from tests.api.conftest import Tenant, new_key
from tests.api.test_usage import attempted, used
from tests.commands import sluice_command
from tests.gateway import Gateway

MARCH = ("--since", "2026-03-01", "--until", "2026-04-01")


async def test_usage_is_shown_as_a_table_as_csv_and_as_json(api: Gateway, tenant: Tenant, tmp_path: Path) -> None:
    key = (await new_key(tenant, scopes=["read"])).secret

    async def run(*arguments: str) -> str:
        code, out, err = await sluice_command(api, tmp_path, "usage", *arguments, key=key)
        assert code == 0, err
        return out

    await used(tenant, jobs=1_200, input_tokens=5_000, cost_nanos=2_500_000_000)
    await used(tenant, "2026-03-11T00:00", model="=strong", jobs=3, errors=1, unpriced=1)
    lines = [line.split() for line in (await run(*MARCH)).splitlines()]
    assert lines[0][:4] == ["model", "jobs", "errors", "input"]
    assert lines[1][:7] == ["=strong", "3", "1", "0", "0", "0", "$0.00+"]
    assert lines[2][:7] == ["fast", "1,200", "0", "5,000", "0", "0", "$2.50"]
    assert lines[3][:7] == ["total", "1,203", "1", "5,000", "0", "0", "$2.50+"]
    days = (await run(*MARCH, "--by", "", "--interval", "day")).splitlines()
    assert [line[:16] for line in days] == [
        "start (UTC)     ",
        "2026-03-10 00:00",
        "2026-03-11 00:00",
        "total           ",
    ]
    names, *rows = csv.reader(io.StringIO(await run(*MARCH, "--csv", "--by", "model,user", "--user", "ann")))
    assert (names[:3], rows) == (["model", "user", "start"], [])
    _, *rows = csv.reader(io.StringIO(await run(*MARCH, "--csv")))
    assert [row[0] for row in rows] == ["'=strong", "fast"]
    json = orjson.loads(await run(*MARCH, "--json", "--model", "fast"))
    assert ([row["model"] for row in json["data"]], json["total"]["jobs"]) == (["fast"], 1_200)
    assert orjson.loads(await run("--json", "--since", "2d"))["data"] == []


async def test_the_total_is_of_all_tenants_that_are_shown(
    api: Gateway, tenant: Tenant, neighbour: Tenant, tmp_path: Path
) -> None:
    day = ("--since", "2025-04-01", "--until", "2025-04-02")
    await used(tenant, "2025-04-01T05:00", jobs=2, input_tokens=5, cost_nanos=2_500_000_000)
    await used(neighbour, "2025-04-01T06:00", jobs=40, errors=1, unpriced=1, cost_nanos=10**9)
    for by in ("tenant", "tenant,user"):
        _, out, err = await sluice_command(api, tmp_path, "usage", *day, "--by", by, "--json")
        total = orjson.loads(out)["total"]
        assert (total["jobs"], total["errors"], total["input_tokens"], total["cost_usd"]) == (42, 1, 5, "3.50"), err
    _, out, err = await sluice_command(api, tmp_path, "usage", *day, "--by", "tenant")
    assert out.splitlines()[-1].split() == ["total", "42", "1", "5", "0", "0", "$3.50+", "$0.00", "-", "-", "-"], err


async def test_what_the_gateway_refuses_is_said(api: Gateway, tmp_path: Path) -> None:
    code, _, err = await sluice_command(api, tmp_path, "usage", "--by", "user,tag", "--interval", "minute")
    assert code == 1
    assert "by end user and by tag" in err
    assert "interval: must be one of hour, day, week, month, all" in err


async def test_an_export_is_compared_by_day_and_model(api: Gateway, tenant: Tenant, tmp_path: Path) -> None:
    key = (await new_key(tenant, role="admin")).secret
    export = tmp_path / "export.csv"

    async def compared(*arguments: str) -> tuple[int | None, list[Any]]:
        code, out, err = await sluice_command(
            api, tmp_path, "usage", "import", str(export), "--json", *arguments, key=key
        )
        assert out, err
        return code, [(one["model"], one["what"], one["ours"], one["theirs"]) for one in orjson.loads(out)["data"]]

    for _ in range(2):
        await attempted(tenant, "2026-02-10T12:00", deployment="p/m-2026-01-01", input_tokens=500, cost_nanos=10**9)
    await attempted(tenant, "2026-02-12T12:00")
    head = "date,model,input_tokens,cost_usd\n"
    export.write_text(head + "2026-02-10,m,1005,2.01\n")
    same = [("m", "input_tokens", 1000, 1005), ("m", "cost_usd", "2.00", "2.01")]
    assert await compared() == (0, same)
    assert await compared("--tolerance", "0.1") == (1, same)
    assert await compared("--provider", "p") == (0, same)
    code, out, err = await sluice_command(api, tmp_path, "usage", "import", str(export), "--provider", "nope", key=key)
    assert (code, out) == (1, "")
    assert "no provider 'nope' in what was used" in err
    assert "used were: p\n" in err
    export.write_text(head + "2026-02-10,m,1000,2.00\n2026-02-10,other,7,0.5\n")
    code, out, err = await sluice_command(api, tmp_path, "usage", "import", str(export), key=key)
    assert code == 1, err
    assert [line.split()[1:] for line in out.splitlines() if "other" in line] == [
        ["other", "input_tokens", "0", "7", "-7", "-100.0", "differs"],
        ["other", "cost_usd", "0.0000", "0.5000", "-0.5000", "-100.0", "differs"],
    ]
    assert "differs" not in "".join(line for line in out.splitlines() if " m " in line)


async def test_what_is_no_export_is_said(api: Gateway, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    code, out, err = await sluice_command(api, tmp_path, "usage", "import", "x.csv")
    assert (code, out) == (1, "")
    assert "columns that are not known: a, b" in err
    code, _, err = await sluice_command(api, tmp_path, "usage", "import", "missing.csv")
    assert code == 2
    assert "No such file" in err
