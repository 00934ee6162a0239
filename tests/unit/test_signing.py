import base64
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
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
