import base64
import contextlib
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from shared import signing

BODY = json.dumps({"type": "job.completed", "text": "grüße"}, ensure_ascii=False).encode()


def test_a_secret_is_new_random_bytes() -> None:
    first, second = signing.new_secret(), signing.new_secret()
    assert first != second
    assert first.startswith("whsec_")
    assert len(base64.b64decode(first.removeprefix("whsec_"), validate=True)) == 32


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=2)), timezone(timedelta(hours=-9))])
def test_the_specifications_library_accepts_it(zone: timezone) -> None:
    secret = signing.new_secret()
    signed = signing.headers(secret, event_id="evt_1", timestamp=datetime.now(zone), body=BODY)
    assert set(signed) == {"webhook-id", "webhook-timestamp", "webhook-signature"}
    assert signed["webhook-id"] == "evt_1"
    assert Webhook(secret).verify(BODY, signed) == json.loads(BODY)


@pytest.mark.parametrize("changed", ["webhook-id", "webhook-timestamp", "body", "secret"])
def test_every_part_is_signed(changed: str) -> None:
    secret, now = signing.new_secret(), datetime.now(UTC)
    signed = signing.headers(secret, event_id="evt_1", timestamp=now, body=BODY)
    if changed == "webhook-id":
        signed[changed] = "evt_2"
    if changed == "webhook-timestamp":
        signed[changed] = str(int(now.timestamp()) - 1)
    verifier = Webhook(signing.new_secret() if changed == "secret" else secret)
    with pytest.raises(WebhookVerificationError, match="No matching signature"):
        verifier.verify(BODY + b" " if changed == "body" else BODY, signed)


def test_the_specifications_own_example() -> None:
    signed = signing.headers(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        event_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp=datetime.fromtimestamp(1614265330, UTC),
        body=b'{"test": 2432232314}',
    )
    assert signed["webhook-timestamp"] == "1614265330"
    assert signed["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_several_secrets_sign_one_after_another() -> None:
    old, new = signing.new_secret(), signing.new_secret()
    signed = signing.headers(new, old, event_id="evt_1", timestamp=datetime.now(UTC), body=BODY)
    assert len(signed["webhook-signature"].split(" ")) == 2
    for secret in (old, new):
        assert Webhook(secret).verify(BODY, signed) == json.loads(BODY)


@pytest.mark.parametrize("changed", [None, "webhook-id", "webhook-timestamp", "body"])
def test_an_asymmetric_signature_is_ed25519_over_the_same(changed: str | None) -> None:
    secret = signing.new_secret("v1a")
    assert secret.startswith("whsk_")
    public = signing.public_half(secret)
    assert public is not None
    signed = signing.headers(secret, event_id="evt_1", timestamp=datetime.now(UTC), body=BODY)
    if changed in signed:
        signed[changed] += "1"
    body = BODY + b" " if changed == "body" else BODY
    content = f"{signed['webhook-id']}.{signed['webhook-timestamp']}.".encode() + body
    signature = base64.b64decode(signed["webhook-signature"].removeprefix("v1a,"), validate=True)
    with contextlib.nullcontext() if changed is None else pytest.raises(InvalidSignature):
        Ed25519PublicKey.from_public_bytes(public).verify(signature, content)


def test_a_private_key_is_a_seed_and_its_public_key_and_is_never_hinted_at() -> None:
    secret = signing.new_secret("v1a")
    raw = base64.b64decode(secret.removeprefix("whsk_"), validate=True)
    public = Ed25519PrivateKey.from_private_bytes(raw[:32]).public_key().public_bytes_raw()
    assert (raw[32:], signing.public_half(secret)) == (public, public)
    assert signing.public_text(public) == "whpk_" + base64.b64encode(public).decode()
    assert signing.hint(secret).startswith("whpk_…")
    assert signing.public_text(public).rstrip("=").endswith(signing.hint(secret)[-4:])
    assert signing.public_half(signing.new_secret()) is None


def test_the_example_of_rfc_8037_as_a_key_set() -> None:
    public = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    assert signing.jwks([public])["keys"] == [
        {
            "kty": "OKP",
            "crv": "Ed25519",
            "use": "sig",
            "alg": "EdDSA",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        }
    ]
