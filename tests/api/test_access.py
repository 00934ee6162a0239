"""Every route, asked by every kind of caller: who may, who is refused and how, and that a refusal changes nothing."""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData, web
from aiohttp.test_utils import make_mocked_request

from gateway_api import access
from gateway_api.routes import ROUTES
from shared.errors import ApiError
from tests.api.conftest import Key, Tenant, fetch_row, new_key, new_tenant
from tests.gateway import ADMIN_KEY, Gateway, line

NOBODY = ("none", "garbage", "revoked", "expired")
CALLERS = ("viewer", "submit", "read", "webhooks", "admin", "owner", "stranger", "bootstrap")
TABLES = (
    "jobs",
    "batches",
    "tenants",
    "teams",
    "api_keys",
    "key_secrets",
    "rate_limits",
    "audit_log",
    "webhook_endpoints",
)

SUBMIT = ("submit", "admin", "owner", "stranger", "bootstrap")
READ = ("viewer", "read", "admin", "owner", "stranger", "bootstrap")
WEBHOOKS = ("webhooks", "admin", "owner", "stranger", "bootstrap")
ADMIN = ("admin", "owner", "stranger", "bootstrap")
BOOTSTRAP = ("bootstrap",)

# Route: who may, the status that they get, and that of the stranger: the owner of another tenant, for whom what is not
# its own is not there.
ROWS: Mapping[str, tuple[tuple[str, ...], int, int]] = {
    "GET /": ((*NOBODY, *CALLERS), 200, 200),
    "GET /healthz": ((*NOBODY, *CALLERS), 200, 200),
    "GET /readyz": ((*NOBODY, *CALLERS), 200, 200),
    "POST /v1/jobs": (SUBMIT, 202, 202),
    "GET /v1/jobs": (READ, 200, 200),
    "POST /v1/jobs/retry": (SUBMIT, 202, 202),
    "GET /v1/jobs/{id}": (READ, 200, 404),
    "GET /v1/jobs/{id}/attempts": (READ, 200, 404),
    "GET /v1/jobs/{id}/events": (READ, 200, 404),
    "POST /v1/jobs/{id}/cancel": (SUBMIT, 200, 404),
    "POST /v1/jobs/{id}/retry": (SUBMIT, 409, 404),  # it has not failed
    "POST /v1/routes/explain": (READ, 200, 200),
    "POST /v1/estimate": (READ, 200, 200),
    "POST /v1/files": (SUBMIT, 400, 400),  # it is no form
    "GET /v1/files": (READ, 200, 200),
    "GET /v1/files/{id}": (READ, 200, 404),
    "DELETE /v1/files/{id}": (SUBMIT, 200, 404),
    "GET /v1/files/{id}/content": (READ, 200, 404),
    "POST /v1/batches": (SUBMIT, 202, 202),
    "GET /v1/batches": (READ, 200, 200),
    "GET /v1/batches/{id}": (READ, 200, 404),
    "GET /v1/batches/{id}/results": (READ, 200, 404),
    "GET /v1/batches/{id}/events": (READ, 200, 404),
    "POST /v1/batches/{id}/cancel": (SUBMIT, 200, 404),
    "POST /v1/batches/{id}/retry": (SUBMIT, 202, 404),
    "POST /v1/chat/completions": (SUBMIT, 202, 202),
    "POST /v1/chat": (SUBMIT, 202, 202),
    "POST /v1/embeddings": (SUBMIT, 202, 202),
    "POST /v1/responses": (SUBMIT, 202, 202),
    "GET /v1/responses/{id}": (READ, 200, 404),
    "POST /v1/responses/{id}/cancel": (SUBMIT, 200, 404),
    "GET /v1/responses/{id}/input_items": (READ, 200, 404),
    "POST /v1/messages": (SUBMIT, 202, 202),
    "POST /v1/messages/count_tokens": (CALLERS, 200, 200),
    "POST /v1/messages/batches": (SUBMIT, 200, 200),
    "GET /v1/messages/batches": (READ, 200, 200),
    "GET /v1/messages/batches/{id}": (READ, 200, 404),
    "DELETE /v1/messages/batches/{id}": (SUBMIT, 400, 404),  # it has not ended
    "GET /v1/messages/batches/{id}/results": (READ, 400, 404),
    "POST /v1/messages/batches/{id}/cancel": (SUBMIT, 200, 404),
    "GET /v1/models": (CALLERS, 200, 200),
    "GET /v1/models/{model}": (CALLERS, 200, 200),
    "GET /v1/usage": (READ, 200, 200),
    "POST /v1/webhook_endpoints": (WEBHOOKS, 200, 200),
    "GET /v1/webhook_endpoints": (WEBHOOKS, 200, 200),
    "GET /v1/webhook_endpoints/{id}": (WEBHOOKS, 200, 404),
    "POST /v1/webhook_endpoints/{id}": (WEBHOOKS, 200, 404),
    "PATCH /v1/webhook_endpoints/{id}": (WEBHOOKS, 200, 404),
    "DELETE /v1/webhook_endpoints/{id}": (WEBHOOKS, 200, 404),
    "POST /v1/webhook_endpoints/{id}/rotate_secret": (WEBHOOKS, 200, 404),
    "POST /v1/webhook_endpoints/{id}/test": (WEBHOOKS, 409, 404),  # it is disabled
    "GET /v1/webhook_endpoints/{id}/jwks.json": ((*NOBODY, *CALLERS), 200, 200),
    "GET /v1/webhook_endpoints/{id}/deliveries": (WEBHOOKS, 200, 404),
    "POST /v1/webhook_endpoints/{id}/replay": (WEBHOOKS, 202, 404),
    "GET /v1/webhook_deliveries": (WEBHOOKS, 200, 200),
    "GET /v1/webhook_deliveries/{id}": (WEBHOOKS, 200, 404),
    "POST /v1/webhook_deliveries/{id}/redeliver": (WEBHOOKS, 202, 404),
    "GET /v1/webhook_event_types": (CALLERS, 200, 200),
    "GET /v1/webhook_signing_secret": (WEBHOOKS, 200, 200),
    "GET /v1/admin/usage/upstream": (ADMIN, 200, 200),
    "GET /v1/admin/deployments": (BOOTSTRAP, 200, 403),
    "POST /v1/admin/tenants": (BOOTSTRAP, 200, 403),
    "GET /v1/admin/tenants": (ADMIN, 200, 200),
    "GET /v1/admin/tenants/{id}": (ADMIN, 200, 404),
    "PATCH /v1/admin/tenants/{id}": (BOOTSTRAP, 200, 403),
    "DELETE /v1/admin/tenants/{id}": (BOOTSTRAP, 200, 403),
    "POST /v1/admin/teams": (ADMIN, 200, 200),
    "GET /v1/admin/teams": (ADMIN, 200, 200),
    "GET /v1/admin/teams/{id}": (ADMIN, 200, 404),
    "PATCH /v1/admin/teams/{id}": (ADMIN, 200, 404),
    "DELETE /v1/admin/teams/{id}": (ADMIN, 200, 404),
    "POST /v1/admin/keys": (ADMIN, 200, 200),
    "GET /v1/admin/keys": (ADMIN, 200, 200),
    "GET /v1/admin/keys/{id}": (ADMIN, 200, 404),
    "PATCH /v1/admin/keys/{id}": (ADMIN, 200, 404),
    "DELETE /v1/admin/keys/{id}": (ADMIN, 200, 404),
    "POST /v1/admin/keys/{id}/rotate": (ADMIN, 200, 404),
    "POST /v1/admin/budgets": (ADMIN, 200, 200),
    "GET /v1/admin/budgets": (ADMIN, 200, 200),
    "GET /v1/admin/budgets/{id}": (ADMIN, 200, 404),
    "PATCH /v1/admin/budgets/{id}": (ADMIN, 200, 404),
    "DELETE /v1/admin/budgets/{id}": (ADMIN, 200, 404),
    "POST /v1/admin/limits": (ADMIN, 200, 200),
    "GET /v1/admin/limits": (ADMIN, 200, 200),
    "GET /v1/admin/limits/{id}": (ADMIN, 200, 404),
    "PATCH /v1/admin/limits/{id}": (ADMIN, 200, 404),
    "DELETE /v1/admin/limits/{id}": (ADMIN, 200, 404),
    "GET /v1/admin/alerts": (ADMIN, 200, 200),
    "GET /v1/admin/audit": (ADMIN, 200, 200),
    "GET /v1/admin/audit/{id}": (ADMIN, 200, 404),
}
EVERY = [f"{route.method} {route.path}".replace("{model:.+}", "{model}") for route in ROUTES]

MESSAGES = {"model": "simulated/small", "messages": [{"role": "user", "content": "hello"}]}
MESSAGE_BATCH = {"requests": [{"custom_id": "a", "params": {**MESSAGES, "max_tokens": 9}}]}
INPUT = {"model": "simulated/small", "input": "hello"}
ENDPOINT = {"url": "https://hooks.example.com/", "name": "made", "event_types": ["job.failed"]}
BUDGET = {"scope": {"user": "somebody"}, "window": "day", "limit_usd": "1.00"}
BODIES: Mapping[str, Any] = {
    "POST /v1/jobs": line(),
    "POST /v1/jobs/retry": {"status": "failed"},
    "POST /v1/routes/explain": line(),
    "POST /v1/estimate": line(),
    "POST /v1/batches": {"requests": [line()]},
    "POST /v1/chat/completions": MESSAGES,
    "POST /v1/chat": MESSAGES,
    "POST /v1/embeddings": INPUT,
    "POST /v1/responses": INPUT,
    "POST /v1/messages": {**MESSAGES, "max_tokens": 9},
    "POST /v1/messages/count_tokens": MESSAGES,
    "POST /v1/messages/batches": MESSAGE_BATCH,
    "POST /v1/admin/keys": {"name": "made"},
    "PATCH /v1/admin/keys/{id}": {"name": "changed"},
    "PATCH /v1/admin/limits/{id}": {"rpm": 7},
    "POST /v1/admin/budgets": BUDGET,
    "PATCH /v1/admin/budgets/{id}": {"limit_usd": "2.00"},
    "POST /v1/webhook_endpoints": ENDPOINT,
    "POST /v1/webhook_endpoints/{id}": {"name": "changed"},
    "PATCH /v1/webhook_endpoints/{id}": {"name": "changed"},
    "POST /v1/webhook_endpoints/{id}/replay": {"since": datetime.now(UTC).isoformat()},
}

QUERIES: Mapping[str, str] = {"GET /v1/admin/usage/upstream": "?start=2026-11-01&end=2026-11-01"}


@dataclass(frozen=True)
class House:
    """A tenant, with a key of every kind but the stranger's, which is another tenant's owner's."""

    home: Tenant
    secrets: Mapping[str, str]
    made: list[str]

    async def status(self, route: str, caller: str) -> int:
        """Ask as a caller, about something that is new and the home tenant's."""
        method, _, path = route.partition(" ")
        body = BODIES.get(route)
        if body is None and method in ("POST", "PATCH") and path.startswith(("/v1/admin/tenants", "/v1/admin/teams")):
            self.made.append(f"made-{len(self.made)}-{self.home.id}")
            body = {"name": self.made[-1]}
        if route == "POST /v1/admin/limits":
            body = self._limits()
        path = path.replace("{model}", "fast") + QUERIES.get(route, "")
        if "{id}" in path:
            path = path.replace("{id}", await self._fresh(route, caller))
        headers = {"Authorization": self.secrets[caller], "Prefer": "respond-async"}
        if caller == "bootstrap" and not path.startswith("/v1/admin"):
            headers["X-Sluice-Tenant"] = self.home.name
        api = self.home.api
        async with api.client.request(method, api.url + path, json=body, headers=headers) as answer:
            return answer.status

    async def _fresh(self, route: str, caller: str) -> str:
        noun = route.partition("/{id}")[0].rpartition("/")[2]
        match noun:
            case "tenants" if caller == "bootstrap":
                return (await new_tenant(self.home.api)).id
            case "tenants":
                return self.home.id
            case "audit":
                _, listed, _ = await self.home.ask("GET", "/v1/admin/audit?limit=1")
                return str(listed["data"][0]["id"])
            case "batches" if "/messages/" in route:
                _, made, _ = await self.home.ask("POST", "/v1/messages/batches", MESSAGE_BATCH)
                return str(made["id"])
            case "jobs" | "batches":
                body = line() if noun == "jobs" else {"requests": [line()]}
                _, made, _ = await self.home.ask("POST", f"/v1/{noun}", body)
                return str(made["id"])
            case "files":
                form = FormData({"purpose": "batch", "file": io.BytesIO(b"{}")})
                headers = {"X-Sluice-Tenant": self.home.name}
                url = self.home.api.url + "/v1/files"
                async with self.home.api.client.post(url, data=form, headers=headers) as answer:
                    return str((await answer.json())["id"])
            case "responses":
                _, made, _ = await self.home.ask("POST", "/v1/responses", INPUT | {"background": True})
                return str(made["id"])
            case "webhook_endpoints":
                enabled = not route.endswith("/test")
                _, listed, _ = await self.home.ask("GET", "/v1/webhook_endpoints?limit=100")
                for one in listed["data"]:  # a tenant has a hundred at most
                    if one["enabled"] is enabled and not route.startswith("DELETE"):
                        return str(one["id"])
                _, made, _ = await self.home.ask("POST", "/v1/webhook_endpoints", ENDPOINT | {"enabled": enabled})
                return str(made["id"])
            case "webhook_deliveries":
                made = await fetch_row(
                    self.home.api,
                    "INSERT INTO deliveries (id, event_id, tenant_id, lane, type, body, url, status, finished_at) "
                    "VALUES (new_id(), new_id(), $1, $1 || '/x', 'budget.exhausted', '{}', 'https://x/', 'exhausted', "
                    "now()) RETURNING id",
                    self.home.id,
                )
                return f"delivery_{made['id'].hex}"
            case "budgets":
                _, made, _ = await self.home.ask("POST", "/v1/admin/budgets", BUDGET)
                return str(made["id"])
            case "limits":
                _, made, _ = await self.home.ask("POST", "/v1/admin/limits", self._limits())
                return str(made["id"])
            case _:
                self.made.append(f"made-{len(self.made)}-{self.home.id}")
                _, made, _ = await self.home.ask("POST", f"/v1/admin/{noun}", {"name": self.made[-1]})
                return str(made["id"])

    def _limits(self) -> dict[str, Any]:
        self.made.append(f"made-{len(self.made)}-{self.home.id}")
        return {"end_user": self.made[-1], "rpm": 5}

    async def rows(self) -> list[int]:
        counts = ", ".join(f"(SELECT count(*) FROM {table})" for table in TABLES)
        return list(await fetch_row(self.home.api, f"SELECT {counts}"))


@pytest.fixture(scope="module")
async def house(api: Gateway) -> House:
    home, elsewhere = await new_tenant(api), await new_tenant(api)
    keys: dict[str, Key] = {
        "viewer": await new_key(home, role="viewer"),
        **{scope: await new_key(home, scopes=[scope]) for scope in ("submit", "read", "webhooks")},
        "admin": await new_key(home, role="admin"),
        "owner": await new_key(home, role="owner"),
        "stranger": await new_key(elsewhere, role="owner"),
        "revoked": await new_key(home, role="owner"),
        "expired": await new_key(home, role="owner", expires_at="2999-01-01T00:00:00Z"),
    }
    await home.ask("DELETE", f"/v1/admin/keys/{keys['revoked'].id}")
    await fetch_row(
        api,
        "UPDATE api_keys SET expires_at = now() - interval '1 second' WHERE id = $1::uuid RETURNING id",
        keys["expired"].id.removeprefix("key_"),
    )
    secrets = {name: f"Bearer {key.secret}" for name, key in keys.items()}
    secrets |= {"none": "", "garbage": "Bearer sk-sl-" + "x" * 43, "bootstrap": f"Bearer {ADMIN_KEY}"}
    return House(home, secrets, [])


def test_every_route_has_a_row() -> None:
    assert set(EVERY) == set(ROWS) == set(access.NEEDS)
    assert len(EVERY) == len(set(EVERY))


@pytest.mark.parametrize("route", EVERY)
async def test_who_may_do_what(house: House, route: str) -> None:
    may, good, strangers = ROWS[route]
    for caller in (*NOBODY, *CALLERS):
        expected = 401 if caller in NOBODY else 403
        if caller in may:
            expected = strangers if caller == "stranger" else good
        before = await house.rows()
        assert (caller, await house.status(route, caller)) == (caller, expected)
        if expected in (401, 403) and "{id}" not in route:
            assert await house.rows() == before, caller


async def test_what_is_refused_changes_nothing(house: House) -> None:
    key, team = await house._fresh("x /keys/{id}", "admin"), await house._fresh("x /teams/{id}", "admin")
    _, job, _ = await house.home.ask("POST", "/v1/jobs", line())
    refused = [
        ("DELETE", f"/v1/admin/keys/{key}", None),
        ("PATCH", f"/v1/admin/keys/{key}", {"name": "mine"}),
        ("POST", f"/v1/admin/keys/{key}/rotate", None),
        ("PATCH", f"/v1/admin/teams/{team}", {"name": "mine"}),
        ("DELETE", f"/v1/admin/teams/{team}", None),
        ("POST", f"/v1/jobs/{job['id']}/cancel", None),
    ]
    objects = (f"/v1/admin/keys/{key}", f"/v1/admin/teams/{team}", f"/v1/jobs/{job['id']}")
    before = [await house.rows(), *[(await house.home.ask("GET", path))[1] for path in objects]]
    for caller in (*NOBODY, "viewer", "read", "webhooks", "stranger"):
        for method, path, body in refused:
            status, _, _ = await house.home.api.ask(
                method, path, body, headers={"Authorization": house.secrets[caller]}
            )
            assert status in (401, 403, 404), (caller, path)
    assert before == [await house.rows(), *[(await house.home.ask("GET", path))[1] for path in objects]]


async def test_a_missing_scope_is_named(house: House) -> None:
    for caller, path, scope in (("submit", "/v1/jobs", "read"), ("viewer", "/v1/admin/keys", "admin")):
        status, shape, _ = await house.home.api.ask("GET", path, headers={"Authorization": house.secrets[caller]})
        assert (status, shape["error"]["code"]) == (403, "scope_not_allowed")
        assert f"`{scope}`" in shape["error"]["message"]


async def test_a_route_without_an_entry_is_refused_to_everyone() -> None:
    async def unlisted(_: web.Request) -> web.Response:
        raise AssertionError

    app = web.Application()
    app.router.add_get("/v1/unlisted", unlisted)
    request = make_mocked_request("GET", "/v1/unlisted")
    request._match_info = await app.router.resolve(request)
    with pytest.raises(ApiError) as refused:
        access.needed(request)
    assert refused.value.status == 403


def test_the_document_is_the_table() -> None:
    text = (Path(__file__).parents[2] / "docs" / "access.md").read_text()
    rows = re.findall(r"^\| `((?:GET|POST|PATCH|DELETE) [^`]+)` \| ([^|]+) \|", text, re.MULTILINE)
    assert {route: need.strip().strip("`") for route, need in rows} == access.NEEDS
