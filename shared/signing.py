"""Signatures of webhooks, as Standard Webhooks has them (https://www.standardwebhooks.com)."""

import base64
import secrets
from datetime import UTC, datetime

from standardwebhooks import Webhook

PREFIX = "whsec_"
SECRET_BYTES = 32


def new_secret() -> str:
    """Return a new signing secret, `whsec_` and base64 of 32 random bytes."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def headers(secret: str, *, event_id: str, timestamp: datetime, body: bytes) -> dict[str, str]:
    """Return the three headers of a signed webhook: HMAC-SHA256 over `id.timestamp.body`.

    `event_id` is the same on every try; `timestamp` is the try's, with a time zone; `body` is UTF-8.
    Raises ValueError for a secret that is no base64 and for a body that is no UTF-8.
    """
    moment = timestamp.astimezone(UTC)  # the library takes any time for one in UTC
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(secret).sign(event_id, moment, body.decode()),
    }
