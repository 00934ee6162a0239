"""The configuration's `alerts`: the channels by which the operator hears of what `docs/alerts.md` lists."""

import base64
import re
from collections.abc import Callable
from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationInfo

from shared import signing
from shared.config_faults import suggestion
from shared.webhook_url import fault

KINDS = (
    "budget.exhausted",
    "budget.exhaustion_projected",
    "budget.threshold_crossed",
    "circuit.opened",
    "key.refused",
    "ledger.difference",
    "model.unpriced",
    "webhook_endpoint.disabled",
)
"""What an alert may be of."""

PORTS = {"starttls": 587, "tls": 465, "none": 25}
_ANYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))  # the operator's own addresses
_MAILBOX = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _known_kind(value: str) -> str:
    if value not in KINDS:
        raise ValueError("is not a kind of alert" + suggestion(value, KINDS))
    return value


def _url(value: SecretStr) -> SecretStr:
    if wrong := fault(value.get_secret_value(), allow_http=True, allowed=_ANYWHERE):
        raise ValueError(wrong)
    return value


def _signing_secret(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    try:
        raw = base64.b64decode(text.removeprefix(signing.PREFIX), validate=True)
    except ValueError:
        raw = b""
    if not text.startswith(signing.PREFIX) or not 24 <= len(raw) <= 64:
        raise ValueError("must be whsec_ and the base64 of 24 to 64 random bytes")
    return value


def _mailbox(value: str) -> str:
    if not _MAILBOX.fullmatch(value) or len(value) > 254:
        raise ValueError("must be an address such as ops@example.com")
    return value


def _where_tls(value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
    if info.data.get("security") == "none" and (value is not None or info.data.get("user") is not None):
        raise ValueError("must not be sent without TLS; set security to starttls or tls")
    if info.data.get("user") is not None and value is None:
        raise ValueError("is required where there is a user")
    return value


def _some(kinds: tuple[str, ...]) -> tuple[str, ...]:
    if not kinds:
        raise ValueError("must not be empty; leave it out for all kinds")
    return kinds


class Smtp(_Closed):
    """A mail server. Without a `port` it is the usual one of its `security`; without a `user`, nobody logs in."""

    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,253}$")]
    port: Annotated[int | None, Field(gt=0, le=65_535)] = None
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: Annotated[str | None, Field(min_length=1)] = None
    password: Annotated[SecretStr | None, AfterValidator(_where_tls), Field(validate_default=True)] = None


_Kind = Literal["webhook", "slack", "email"]


def _of(*kinds: _Kind) -> Callable[[object, ValidationInfo], object]:
    """Return what checks that a setting is there in channels of these kinds, and in no others."""

    def check(value: object, info: ValidationInfo) -> object:
        kind = info.data.get("kind")
        if kind in kinds and not value:
            raise ValueError("is required")
        if kind is not None and kind not in kinds and value:
            raise ValueError(f"is not a setting of the kind {kind}")
        return value

    return check


_DEFAULT = Field(validate_default=True)


class Channel(_Closed):
    """Where alerts are sent, and which: all kinds unless some are named."""

    kind: _Kind
    url: Annotated[
        Annotated[SecretStr, AfterValidator(_url)] | None, AfterValidator(_of("webhook", "slack")), _DEFAULT
    ] = None
    secret: Annotated[
        Annotated[SecretStr, AfterValidator(_signing_secret)] | None, AfterValidator(_of("webhook")), _DEFAULT
    ] = None
    smtp: Annotated[Smtp | None, AfterValidator(_of("email")), _DEFAULT] = None
    sender: Annotated[
        Annotated[str, AfterValidator(_mailbox)] | None,
        AfterValidator(_of("email")),
        _DEFAULT,
    ] = None
    to: Annotated[tuple[Annotated[str, AfterValidator(_mailbox)], ...], AfterValidator(_of("email")), _DEFAULT] = ()
    kinds: Annotated[tuple[Annotated[str, AfterValidator(_known_kind)], ...], AfterValidator(_some)] | None = None


class Alerts(_Closed):
    """The channels by name. Without any, alerts are kept, listed and logged."""

    channels: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")], Channel] = {}
