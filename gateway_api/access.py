"""Who may do what: what each route needs of a key, and what a key may do. `docs/access.md` shows it as a table.

Not here: how a key is recognised, which is `auth`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args
from uuid import UUID

from aiohttp import web

from gateway_api.caller_limits import UNLIMITED, AtDoor
from shared import ids
from shared.db.tenants import DEFAULT
from shared.errors import ApiError, Fault

Scope = Literal["submit", "read", "webhooks", "admin"]
Role = Literal["owner", "admin", "viewer"]
Need = Scope | Literal["nothing", "a key", "bootstrap"]

SCOPES: tuple[Scope, ...] = get_args(Scope)
OF_ROLE: Mapping[Role, tuple[Scope, ...]] = {"owner": SCOPES, "admin": SCOPES, "viewer": ("read",)}
"""The scopes of a person's key. What an admin may not, an owner may: touch the keys of owners."""

NEEDS: Mapping[str, Need] = {
    "GET /": "nothing",
    "GET /healthz": "nothing",
    "GET /readyz": "nothing",
    "POST /v1/jobs": "submit",
    "GET /v1/jobs": "read",
    "POST /v1/jobs/retry": "submit",
    "GET /v1/jobs/{id}": "read",
    "GET /v1/jobs/{id}/attempts": "read",
    "GET /v1/jobs/{id}/events": "read",
    "POST /v1/jobs/{id}/cancel": "submit",
    "POST /v1/jobs/{id}/retry": "submit",
    "POST /v1/routes/explain": "read",
    "POST /v1/estimate": "read",
    "POST /v1/files": "submit",
    "GET /v1/files": "read",
    "GET /v1/files/{id}": "read",
    "DELETE /v1/files/{id}": "submit",
    "GET /v1/files/{id}/content": "read",
    "POST /v1/batches": "submit",
    "GET /v1/batches": "read",
    "GET /v1/batches/{id}": "read",
    "GET /v1/batches/{id}/results": "read",
    "GET /v1/batches/{id}/events": "read",
    "POST /v1/batches/{id}/cancel": "submit",
    "POST /v1/batches/{id}/retry": "submit",
    "POST /v1/chat/completions": "submit",
    "POST /v1/chat": "submit",
    "POST /v1/embeddings": "submit",
    "POST /v1/responses": "submit",
    "GET /v1/responses/{id}": "read",
    "POST /v1/responses/{id}/cancel": "submit",
    "GET /v1/responses/{id}/input_items": "read",
    "POST /v1/messages": "submit",
    "POST /v1/messages/count_tokens": "a key",
    "POST /v1/messages/batches": "submit",
    "GET /v1/messages/batches": "read",
    "GET /v1/messages/batches/{id}": "read",
    "DELETE /v1/messages/batches/{id}": "submit",
    "GET /v1/messages/batches/{id}/results": "read",
    "POST /v1/messages/batches/{id}/cancel": "submit",
    "GET /v1/models": "a key",
    "GET /v1/models/{model}": "a key",
    "GET /v1/usage": "read",
    "POST /v1/webhook_endpoints": "webhooks",
    "GET /v1/webhook_endpoints": "webhooks",
    "GET /v1/webhook_endpoints/{id}": "webhooks",
    "POST /v1/webhook_endpoints/{id}": "webhooks",
    "PATCH /v1/webhook_endpoints/{id}": "webhooks",
    "DELETE /v1/webhook_endpoints/{id}": "webhooks",
    "POST /v1/webhook_endpoints/{id}/rotate_secret": "webhooks",
    "POST /v1/webhook_endpoints/{id}/test": "webhooks",
    "GET /v1/webhook_endpoints/{id}/jwks.json": "nothing",
    "GET /v1/webhook_endpoints/{id}/deliveries": "webhooks",
    "POST /v1/webhook_endpoints/{id}/replay": "webhooks",
    "GET /v1/webhook_deliveries": "webhooks",
    "GET /v1/webhook_deliveries/{id}": "webhooks",
    "POST /v1/webhook_deliveries/{id}/redeliver": "webhooks",
    "GET /v1/webhook_event_types": "a key",
    "GET /v1/webhook_signing_secret": "webhooks",
    "GET /v1/admin/usage/upstream": "admin",
    "GET /v1/admin/deployments": "bootstrap",
    "POST /v1/admin/tenants": "bootstrap",
    "GET /v1/admin/tenants": "admin",
    "GET /v1/admin/tenants/{id}": "admin",
    "PATCH /v1/admin/tenants/{id}": "bootstrap",
    "DELETE /v1/admin/tenants/{id}": "bootstrap",
    "POST /v1/admin/teams": "admin",
    "GET /v1/admin/teams": "admin",
    "GET /v1/admin/teams/{id}": "admin",
    "PATCH /v1/admin/teams/{id}": "admin",
    "DELETE /v1/admin/teams/{id}": "admin",
    "POST /v1/admin/keys": "admin",
    "GET /v1/admin/keys": "admin",
    "GET /v1/admin/keys/{id}": "admin",
    "PATCH /v1/admin/keys/{id}": "admin",
    "DELETE /v1/admin/keys/{id}": "admin",
    "POST /v1/admin/keys/{id}/rotate": "admin",
    "POST /v1/admin/budgets": "admin",
    "GET /v1/admin/budgets": "admin",
    "GET /v1/admin/budgets/{id}": "admin",
    "PATCH /v1/admin/budgets/{id}": "admin",
    "DELETE /v1/admin/budgets/{id}": "admin",
    "POST /v1/admin/limits": "admin",
    "GET /v1/admin/limits": "admin",
    "GET /v1/admin/limits/{id}": "admin",
    "PATCH /v1/admin/limits/{id}": "admin",
    "DELETE /v1/admin/limits/{id}": "admin",
    "GET /v1/admin/alerts": "admin",
    "GET /v1/admin/audit": "admin",
    "GET /v1/admin/audit/{id}": "admin",
}
"""Route by route what it needs. One that is not here is refused to everyone."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and where: a key in its tenant, or the bootstrap key (`key_id` is None) in the tenant it named.

    `everywhere`: it is the bootstrap key and named no tenant, so that it sees all of them where it administers.
    `models` of None are all; `limits` are the key's own; `webhook_hosts` are the tenant's, None for any.
    """

    tenant: str
    tenant_name: str
    key_id: UUID | None = None
    team_id: UUID | None = None
    role: str | None = None
    scopes: frozenset[str] = frozenset(SCOPES)
    models: frozenset[str] | None = None
    everywhere: bool = False
    limits: AtDoor = UNLIMITED
    webhook_hosts: tuple[str, ...] | None = None

    @property
    def actor(self) -> str:
        """The caller's name in the audit log."""
        return "bootstrap" if self.key_id is None else ids.show("key", self.key_id)

    @property
    def owns(self) -> bool:
        """Whether it may touch the keys of owners."""
        return self.key_id is None or self.role == "owner"

    def may_use(self, model: str) -> bool:
        """Tell whether it may name a model; `provider/model` only where just that is listed."""
        return self.models is None or model in self.models

    def not_allowed(self, body: Mapping[str, Any]) -> list[Fault]:
        """Return a fault for every model in a body that it may not name; `models` is a vendor's own fallbacks."""
        if self.models is None:
            return []
        more = body.get("models")
        named = [("body.model", body.get("model"))]
        named += [(f"body.models[{index}]", one) for index, one in enumerate(more if isinstance(more, list) else ())]
        return [
            Fault(param, f"this key may not use the model {model!r}", "model_not_allowed")
            for param, model in named
            if isinstance(model, str) and not self.may_use(model)
        ]


BOOTSTRAP = Caller(DEFAULT, DEFAULT, everywhere=True)


def needed(request: web.Request) -> Need | None:
    """Return what a request's route needs, None where there is no such route. Raises ApiError 403 for an unlisted."""
    resource = request.match_info.route.resource
    if resource is None:
        return None
    method = "GET" if request.method == "HEAD" else request.method
    need = NEEDS.get(f"{method} {resource.canonical}")
    if need is None:
        raise ApiError(403, "This route is not open to any key.", type="permission_error", code="route_not_allowed")
    return need


def check(need: Need | None, caller: Caller) -> None:
    """Raise ApiError 403 where a caller may not do what needs this; the message names the missing scope."""
    if need == "bootstrap":
        check_bootstrap(caller, "do this")
    elif need not in ("a key", None) and need not in caller.scopes:
        raise ApiError(
            403, f"This key lacks the scope `{need}`.", type="permission_error", code="scope_not_allowed", param=need
        )


def check_bootstrap(caller: Caller, what: str) -> None:
    """Raise ApiError 403 for a caller who is not the bootstrap key; `what` only that key may."""
    if caller.key_id is not None:
        message = f"Only the bootstrap admin key may {what}."
        raise ApiError(403, message, type="permission_error", code="bootstrap_required")
