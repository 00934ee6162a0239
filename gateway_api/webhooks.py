"""What a webhook's receiver needs to check a signature."""

from aiohttp import web

from gateway_api.answers import as_json
from gateway_api.state import STATE, TENANT
from shared.db import deliveries
from shared.db import engine as db


async def signing_secret(request: web.Request) -> web.Response:
    """`GET /v1/webhook_signing_secret`: the secret that signs the events of the tenant's jobs."""
    async with db.transaction(request.app[STATE].engine) as connection:
        secret = await deliveries.signing_secret(connection, request[TENANT])
    return as_json({"object": "webhook_signing_secret", "signing_secret": secret})
