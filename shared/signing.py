"""Signatures of webhooks, as Standard Webhooks has them (https://www.standardwebhooks.com).

`v1` is HMAC-SHA256 with a secret that both sides know (`whsec_…`); `v1a` is ed25519: the sender keeps the private key
(`whsk_…`), the receiver has the public one (`whpk_…`). What is signed is the same: `id.timestamp.body`.
"""

import base64
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from standardwebhooks import Webhook

Kind = Literal["v1", "v1a"]

PREFIX = "whsec_"
PRIVATE_PREFIX = "whsk_"
PUBLIC_PREFIX = "whpk_"
SECRET_BYTES = 32
_HINT = 4


def new_secret(kind: Kind = "v1") -> str:
    """Return a new signing secret: `whsec_` and base64 of 32 random bytes.

    Of `v1a`: `whsk_` and base64 of an ed25519 seed with its public key, 64 bytes as libsodium has them.
    """
    seed = secrets.token_bytes(SECRET_BYTES)
    if kind == "v1":
        return PREFIX + base64.b64encode(seed).decode()
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return PRIVATE_PREFIX + base64.b64encode(seed + public).decode()


def public_half(secret: str) -> bytes | None:
    """Return the 32 bytes of the public key of a `v1a` secret, None for a `v1` one."""
    return _raw(secret)[SECRET_BYTES:] if secret.startswith(PRIVATE_PREFIX) else None


def public_text(public: bytes) -> str:
    """Return a public key as a receiver is given it, `whpk_…`."""
    return PUBLIC_PREFIX + base64.b64encode(public).decode()


def jwks(publics: Iterable[bytes]) -> dict[str, Any]:
    """Return public keys as a JSON Web Key Set (RFC 8037)."""
    coordinates = [base64.urlsafe_b64encode(public).decode().rstrip("=") for public in publics]
    return {"keys": [{"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "x": x} for x in coordinates]}


def hint(secret: str) -> str:
    """Return a secret with all but its last characters masked, for its owner to recognise it by."""
    shown = public_text(public_half(secret) or b"") if secret.startswith(PRIVATE_PREFIX) else secret
    return f"{shown.partition('_')[0]}_…{shown.rstrip('=')[-_HINT:]}"


def headers(*signers: str, event_id: str, timestamp: datetime, body: bytes) -> dict[str, str]:
    """Return the three headers of a signed webhook, with a signature by each of the secrets.

    `event_id` is the same on every try; `timestamp` is the try's, with a time zone; `body` is UTF-8.
    Raises ValueError for a secret that is no base64 and for a body that is no UTF-8.
    """
    moment = timestamp.astimezone(UTC)  # the library takes any time for one in UTC
    signatures = [_signature(secret, event_id, moment, body) for secret in signers]
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _signature(secret: str, event_id: str, moment: datetime, body: bytes) -> str:
    if not secret.startswith(PRIVATE_PREFIX):
        return Webhook(secret).sign(event_id, moment, body.decode())
    signed = f"{event_id}.{int(moment.timestamp())}.".encode() + body
    key = Ed25519PrivateKey.from_private_bytes(_raw(secret)[:SECRET_BYTES])
    return f"v1a,{base64.b64encode(key.sign(signed)).decode()}"


def _raw(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(PRIVATE_PREFIX), validate=True)
