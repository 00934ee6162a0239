"""What a webhook's receiver needs: which events there are, the secret of a tenant's jobs, public keys."""

from aiohttp import web

from gateway_api import reading
from gateway_api.answers import as_json
from gateway_api.state import STATE, TENANT
from gateway_api.webhook_endpoints import keys_of
from shared import signing
from shared.db import engine as db
from shared.db import webhook_endpoints, webhook_secrets
from shared.errors import ApiError
from shared.event_types import EVENT_TYPES
from shared.sealing import SealedError

JWKS_SECONDS = 300


async def event_types(request: web.Request) -> web.Response:
    """`GET /v1/webhook_event_types`: what an endpoint may subscribe to."""
    return as_json({"object": "list", "data": EVENT_TYPES})


async def signing_secret(request: web.Request) -> web.Response:
    """`GET /v1/webhook_signing_secret`: the secret that signs what goes to addresses in jobs and batches."""
    state = request.app[STATE]
    keys = keys_of(state)
    try:
        async with db.transaction(state.engine) as connection:
            secret = await webhook_secrets.of_tenant(connection, keys, request[TENANT])
    except SealedError as error:
        said = f"The secret cannot be read: {error}"
        raise ApiError(500, said, type="server_error", code="secret_unreadable", should_retry=False) from None
    return as_json(
        {"object": "webhook_signing_secret", "signing_secret": secret}, headers={"Cache-Control": "no-store"}
    )


async def jwks(request: web.Request) -> web.Response:
    """`GET /v1/webhook_endpoints/{id}/jwks.json`: the public keys that an endpoint's events are signed for, if `v1a`.

    Open to anybody who has the id, as public keys are.
    """
    id_ = reading.path_id(request, "webhook")
    async with db.transaction(request.app[STATE].engine) as connection:
        if not await webhook_endpoints.exists(connection, id_):
            raise reading.not_found("webhook", request.match_info["id"])
        publics = await webhook_secrets.public_keys(connection, id_)
    return as_json(signing.jwks(publics), headers={"Cache-Control": f"public, max-age={JWKS_SECONDS}"})
