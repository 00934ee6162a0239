"""`sluice keys` and `sluice tenants` against a running gateway."""

from pathlib import Path

import orjson

from tests.api.conftest import Key
from tests.commands import sluice_command
from tests.gateway import Gateway


async def test_a_key_is_made_listed_rotated_and_revoked(api: Gateway, tmp_path: Path) -> None:
    async def run(*arguments: str, key: str = "test-admin-key") -> tuple[int | None, str, str]:
        return await sluice_command(api, tmp_path, *arguments, key=key)

    code, out, err = await run("tenants", "create", "cli tenant", "--json")
    assert code == 0, err
    tenant = orjson.loads(out)
    code, out, _ = await run("tenants", "list")
    assert tenant["id"] in out
    assert "cli tenant" in out

    code, out, err = await run(
        "keys", "create", "nightly", "--tenant", "cli tenant", "--scope", "read", "--scope", "admin",
        "--model", "fast", "--expires", "2999-01-01T00:00:00Z",
    )  # fmt: skip
    assert code == 0, err
    assert "not shown again" in err
    shown = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert (shown["tenant"], shown["may"], shown["models"]) == (tenant["id"], "read, admin", "fast")
    first = Key(api, shown["id"], shown["key"])
    assert (await first.ask("GET", "/v1/jobs"))[0] == 200

    code, out, err = await run("keys", "rotate", first.id, "--overlap", "0", "--json")
    assert code == 0, err
    second = Key(api, first.id, orjson.loads(out)["key"])
    assert [(await key.ask("GET", "/v1/jobs"))[0] for key in (first, second)] == [401, 200]

    code, out, _ = await run("keys", "list", "--json", key=second.secret)
    assert [one["name"] for one in orjson.loads(out)["data"]] == ["nightly"]
    code, out, err = await run("keys", "revoke", first.id)
    assert code == 0, err
    assert "revoked" in out
    assert (await second.ask("GET", "/v1/jobs"))[0] == 401
    code, out, _ = await run("keys", "list", "--tenant", tenant["id"])
    assert first.id in out
    assert second.secret not in out
    code, _, err = await run("keys", "list", key=second.secret)
    assert (code, "revoked" in err) == (1, True)
