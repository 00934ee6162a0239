"""Webhook endpoints over HTTP: what may be asked of one, what is shown of it, and the official SDK's calls."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import asyncpg
import pytest
from openai import AsyncOpenAI, ConflictError, NotFoundError
from openai.types.webhooks import WebhookEndpointWithSecret

from shared.event_types import EVENT_TYPES
from tests.api.conftest import Tenant, fetch_row, new_key
from tests.gateway import ADMIN_KEY, Gateway, gateway

URL = "https://hooks.example.com/in"
PATH = "/v1/webhook_endpoints"


def asked(**fields: Any) -> dict[str, Any]:
    return {"url": URL, "name": "mine", "event_types": ["job.completed"], **fields}


async def made(tenant: Tenant, **fields: Any) -> dict[str, Any]:
    status, answer, _ = await tenant.ask("POST", PATH, asked(**fields))
    assert status == 200, answer
    return cast("dict[str, Any]", answer)


async def test_an_endpoint_is_made_listed_changed_and_deleted(tenant: Tenant) -> None:
    first = await made(tenant, headers={"Authorization": "Bearer of-theirs", "X-Env": "prod"}, rpm=60)
    assert first["signing_secret"].startswith("whsec_")
    assert first["signing_secret"].rstrip("=").endswith(first["signing_secret_hint"].partition("…")[2])
    assert first["headers"] == {"Authorization": "***", "X-Env": "***"}
    assert (first["signing"], first["concurrency"], first["enabled"]) == ("v1", 10, True)
    second = await made(tenant, name="other")

    _, listed, _ = await tenant.ask("GET", f"{PATH}?limit=1")
    assert [one["id"] for one in listed["data"]] == [second["id"]]
    _, listed, _ = await tenant.ask("GET", f"{PATH}?after={second['id']}")
    assert [one["id"] for one in listed["data"]] == [first["id"]]
    assert "signing_secret" not in listed["data"][0]

    path = f"{PATH}/{first['id']}"
    change = {"description": "nightly", "rpm": None, "event_types": ["batch.failed", "batch.failed"], "ordered": True}
    status, changed, _ = await tenant.ask("PATCH", path, change)
    assert (status, changed["description"], changed["rpm"], changed["ordered"]) == (200, "nightly", None, True)
    assert changed["event_types"] == ["batch.failed"]
    assert changed["headers"] == first["headers"]
    assert changed["url"] == URL
    assert (await tenant.ask("GET", path))[1] == changed

    assert (await tenant.ask("DELETE", path))[1] == {
        "id": first["id"], "object": "webhook_endpoint.deleted", "deleted": True
    }  # fmt: skip
    for method in ("GET", "PATCH", "DELETE"):
        assert (await tenant.ask(method, path, {} if method == "PATCH" else None))[0] == 404
    left = await fetch_row(
        tenant.api, "SELECT count(*) FROM webhook_secrets WHERE tenant_id = $1 AND endpoint_id IS NOT NULL", tenant.id
    )
    assert left[0] == 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"url": "http://hooks.example.com/"}, "url"),
        ({"url": "https://10.0.0.1/"}, "url"),
        ({"url": "https://2130706433/"}, "url"),
        ({"url": ""}, "url"),
        ({"name": ""}, "name"),
        ({"event_types": []}, "event_types"),
        ({"event_types": ["*"]}, "event_types[0]"),
        ({"event_types": ["fine_tuning.job.succeeded"]}, "event_types[0]"),
        ({"headers": {"webhook-id": "x"}}, "headers"),
        ({"headers": {"Host": "x"}}, "headers"),
        ({"headers": {"Content-Type": "x"}}, "headers"),
        ({"headers": {"Transfer-Encoding": "x"}}, "headers"),
        ({"headers": {"a b": "x"}}, "headers"),
        ({"headers": {"x": "a\r\nb: c"}}, "headers"),
        ({"headers": {"x": ""}}, "headers"),
        ({"headers": {"x": "a", "X": "b"}}, "headers"),
        ({"headers": {f"x-{number}": "x" for number in range(11)}}, "headers"),
        ({"rpm": 0}, "rpm"),
        ({"concurrency": 101}, "concurrency"),
        ({"concurrency": "5"}, "concurrency"),
        ({"enabled": "yes"}, "enabled"),
        ({"signing": "v2"}, "signing"),
        ({"description": "\0"}, "description"),
        ({"what": 1}, "what"),
    ],
)
async def test_what_is_wrong_is_named(tenant: Tenant, fields: dict[str, Any], param: str) -> None:
    status, refused, _ = await tenant.ask("POST", PATH, asked(**fields))
    assert (status, refused["error"]["param"]) == (400, param)
    assert (await tenant.ask("GET", PATH))[1]["data"] == []


async def test_a_secret_is_rotated_with_and_without_an_overlap(tenant: Tenant) -> None:
    first = await made(tenant)
    path = f"{PATH}/{first['id']}"
    valid = "SELECT count(*) FROM webhook_secrets WHERE tenant_id = $1 AND (expires_at IS NULL OR expires_at > now())"
    kept = {"keep_old_secret_active_for_24_hours": True}
    for number in (2, 3, 3):
        status, second, headers = await tenant.ask("POST", f"{path}/rotate_secret", kept)
        assert (status, headers["Cache-Control"]) == (200, "no-store")
        assert second["signing_secret"] != first["signing_secret"]
        assert 86_000 < second["old_secret_expires_at"] - second["updated_at"] <= 86_401
        assert (await fetch_row(tenant.api, valid, tenant.id))[0] == number
    _, third, _ = await tenant.ask("POST", f"{path}/rotate_secret")
    assert third["old_secret_expires_at"] is None
    assert (await fetch_row(tenant.api, valid, tenant.id))[0] == 1


async def test_nothing_in_postgres_is_readable_and_a_plain_secret_is_sealed_when_it_is_used(tenant: Tenant) -> None:
    plain = "whsec_" + "YWFh" * 10
    await fetch_row(
        tenant.api, "INSERT INTO signing_secrets (tenant_id, secret) VALUES ($1, $2) RETURNING 1", tenant.id, plain
    )
    for _ in range(2):
        assert (await tenant.ask("GET", "/v1/webhook_signing_secret"))[1]["signing_secret"] == plain
    left = await fetch_row(tenant.api, "SELECT count(*) FROM signing_secrets WHERE tenant_id = $1", tenant.id)
    assert left[0] == 0
    token = "Bearer of-theirs"
    first = await made(tenant, headers={"Authorization": token})
    kept = await fetch_row(
        tenant.api,
        "SELECT string_agg(s::text, ' '),"
        " (SELECT string_agg(e::text, ' ') FROM webhook_endpoints e WHERE tenant_id = $1),"
        " (SELECT string_agg(a::text, ' ') FROM audit_log a WHERE tenant_id = $1)"
        " FROM webhook_secrets s WHERE tenant_id = $1",
        tenant.id,
    )
    for secret in (plain, first["signing_secret"], token):
        assert not any(secret.removeprefix("whsec_") in text for text in kept)
        assert not any(secret.removeprefix("whsec_").encode().hex() in text for text in kept)
    assert first["id"] in kept[2]


async def test_a_public_key_is_there_for_anybody(tenant: Tenant) -> None:
    first = await made(tenant, signing="v1a")
    assert first["signing_secret"] == first["public_key"]
    assert first["public_key"].startswith("whpk_")
    await tenant.ask("POST", f"{PATH}/{first['id']}/rotate_secret", {"keep_old_secret_active_for_24_hours": True})
    url = f"{tenant.api.url}{PATH}/{first['id']}/jwks.json"
    async with tenant.api.client.get(url, headers={"Authorization": ""}) as answer:
        keys = (await answer.json())["keys"]
    assert [(key["kty"], key["crv"], len(key["x"])) for key in keys] == [("OKP", "Ed25519", 43)] * 2
    shared = await made(tenant)
    assert (await tenant.ask("GET", f"{PATH}/{shared['id']}/jwks.json"))[1] == {"keys": []}
    assert (await tenant.ask("GET", f"{PATH}/webhook_{'0' * 32}/jwks.json"))[0] == 404


async def test_enabling_one_begins_anew(tenant: Tenant) -> None:
    first = await made(tenant)
    path = f"{PATH}/{first['id']}"
    await fetch_row(
        tenant.api,
        "UPDATE webhook_endpoints SET enabled = false, disabled_reason = 'failing', failing_since = now()"
        " WHERE tenant_id = $1 RETURNING 1",
        tenant.id,
    )
    _, off, _ = await tenant.ask("PATCH", path, {"name": "renamed"})
    assert (off["enabled"], off["disabled_reason"]) == (False, "failing")
    assert off["failing_since"] is not None
    assert (await tenant.ask("POST", f"{path}/test"))[1]["error"]["code"] == "webhook_disabled"
    _, on, _ = await tenant.ask("PATCH", path, {"enabled": True})
    assert (on["enabled"], on["disabled_reason"], on["failing_since"]) == (True, None, None)
    _, off, _ = await tenant.ask("PATCH", path, {"enabled": False})
    assert off["disabled_reason"] == "its owner asked for it"


async def test_a_tenant_has_a_hundred_at_most(tenant: Tenant) -> None:
    connection = await asyncpg.connect(tenant.api.env["SLUICE_DATABASE_URL"], timeout=10)
    await connection.execute(
        "INSERT INTO webhook_endpoints (id, tenant_id, url, name, event_types)"
        " SELECT new_id(), $1, $2, 'one', '{job.failed}' FROM generate_series(1, 98)",
        tenant.id, URL,
    )  # fmt: skip
    await connection.close()
    answers = await asyncio.gather(*(tenant.ask("POST", PATH, asked()) for _ in range(4)))
    assert sorted(status for status, _, _ in answers) == [200, 200, 409, 409]


async def test_where_jobs_and_batches_may_send_is_the_tenants(tenant: Tenant) -> None:
    line = {"body": {"model": "simulated/small", "messages": [{"role": "user", "content": "hello"}]}}
    admin = f"/v1/admin/tenants/{tenant.id}"
    for wrong in (["https://a.example/"], ["*"], [], ["a..b"], ["*.*.example"]):
        assert (await tenant.api.ask("PATCH", admin, {"webhook_hosts": wrong}))[0] == 400
    key = await new_key(tenant)
    _, shown, _ = await tenant.api.ask("PATCH", admin, {"webhook_hosts": ["Hooks.Example.com.", "*.inner.example"]})
    assert shown["webhook_hosts"] == ["hooks.example.com", "*.inner.example"]

    async def status(url: str) -> list[int]:
        job = {**line, "webhook": {"url": url}}
        bodies = [("/v1/jobs", job), ("/v1/batches", {"requests": [line], "webhook": {"url": url}}),
                  ("/v1/batches", {"requests": [job]})]  # fmt: skip
        return [(await who.ask("POST", path, body))[0] for path, body in bodies for who in (key, tenant)]

    for good in ("https://HOOKS.example.com./x", "https://a.b.inner.example:8443/"):
        assert await status(good) == [202] * 6
    for bad in ("https://example.com/", "https://inner.example/", "https://evilhooks.example.com/"):
        assert await status(bad) == [400] * 6
    await tenant.api.ask("PATCH", admin, {"webhook_hosts": None})
    assert await status("https://example.com/") == [202] * 6


async def test_the_default_tenants_hosts_hold_for_the_bootstrap_key(api: Gateway) -> None:
    body = {"model": "simulated/small", "messages": [{"role": "user", "content": "hello"}]}
    job = {"body": body, "webhook": {"url": "https://example.com/"}}
    try:
        await api.ask("PATCH", "/v1/admin/tenants/default", {"webhook_hosts": ["hooks.example.com"]})
        assert (await api.ask("POST", "/v1/jobs", job))[0] == 400
    finally:
        await api.ask("PATCH", "/v1/admin/tenants/default", {"webhook_hosts": None})
    assert (await api.ask("POST", "/v1/jobs", job))[0] == 202


@asynccontextmanager
async def sdk(tenant: Tenant) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=tenant.api.url + "/v1",
        api_key=ADMIN_KEY,
        default_headers={"X-Sluice-Tenant": tenant.name},
        max_retries=0,
    ) as client:
        yield client


async def test_the_official_sdk_keeps_endpoints(tenant: Tenant) -> None:
    async with sdk(tenant) as client:
        first = await client.webhooks.create(url=URL, name="mine", event_types=["batch.completed"])
        assert isinstance(first, WebhookEndpointWithSecret)
        WebhookEndpointWithSecret.model_validate(first.model_dump(warnings=False), strict=True)
        second = await client.webhooks.create(
            url=URL, name="other", event_types=["response.failed"], extra_body={"signing": "v1a", "ordered": True}
        )
        assert [one.id async for one in client.webhooks.list(limit=1)] == [second.id, first.id]
        renamed = await client.webhooks.update(first.id, name="renamed")
        assert (renamed.name, renamed.event_types) == ("renamed", ["batch.completed"])
        assert await client.webhooks.retrieve(first.id) == renamed
        rotated = await client.webhooks.rotate_secret(first.id, keep_old_secret_active_for_24_hours=True)
        assert rotated.signing_secret != first.signing_secret
        assert (await client.webhooks.delete(first.id)).deleted is True
        with pytest.raises(NotFoundError):
            await client.webhooks.retrieve(first.id)
        await client.webhooks.update(second.id, extra_body={"enabled": False})
        with pytest.raises(ConflictError):
            await client.webhooks.test(second.id, event_type="batch.completed")
        assert (await client.webhooks.event_types.list()).data == list(EVENT_TYPES)


async def test_without_a_key_nothing_is_kept_in_plain_text(api: Gateway, tmp_path: Path) -> None:
    urls = api.env["SLUICE_DATABASE_URL"], api.env["SLUICE_REDIS_URL"]
    async with gateway(tmp_path, *urls, parts=("api",), env={"SLUICE_SECRETS_KEY": ""}) as bare:
        for method, path in (("POST", PATH), ("GET", "/v1/webhook_signing_secret")):
            status, refused, headers = await bare.ask(method, path, asked())
            assert (status, refused["error"]["code"]) == (501, "no_secrets_key")
            assert headers["x-should-retry"] == "false"
        assert (await bare.ask("GET", PATH))[0] == 200
        deliver = await bare.start("deliver")
        assert await asyncio.wait_for(deliver.wait(), 30) == 1
        assert "SLUICE_SECRETS_KEY must be set" in bare.logs()
