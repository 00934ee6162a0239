"""What may be asked of a webhook endpoint: its fields, and what is wrong with them."""

import re
from typing import Annotated, Any

from aiohttp import web
from pydantic import AfterValidator, Field, StrictBool

from gateway_api import reading
from gateway_api.admin.changing import Closed, body
from gateway_api.admin.tenants import Name
from gateway_api.state import STATE
from gateway_api.webhook_address import url_fault
from shared.errors import Fault
from shared.event_types import EventType
from shared.signing import Kind
from shared.webhook_url import LONGEST

MOST_HEADERS = 10
MOST_CONCURRENT = 100
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]{0,1022}[\x21-\x7e])?")
# Ours to set, or the connection's.
_OURS = re.compile(
    r"(?:webhook|content|proxy|sec)-.*"
    r"|host|connection|keep-alive|transfer-encoding|te|trailer|upgrade|expect|date|user-agent|accept-encoding",
    re.IGNORECASE,
)


def _headers(given: dict[str, str]) -> dict[str, str]:
    if len({name.lower() for name in given}) < len(given):
        raise ValueError("has a name twice")
    for name, value in given.items():
        if not _TOKEN.fullmatch(name) or _OURS.fullmatch(name):
            raise ValueError(f"has the name {name[:64]!r}, which no header of yours may have")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"has a value of {name!r} that is not 1 to 1024 printable ASCII characters")
    return given


def _once_each(given: list[EventType]) -> list[EventType]:
    return list(dict.fromkeys(given))


def _printable(text: str) -> str:
    if not text.replace("\n", "").isprintable():
        raise ValueError("must be printable")
    return text


Url = Annotated[str, Field(min_length=1, max_length=LONGEST)]
EventTypes = Annotated[list[EventType], Field(min_length=1, max_length=100), AfterValidator(_once_each)]


class _Fields(Closed):
    description: Annotated[str, Field(max_length=1_000), AfterValidator(_printable)] = ""
    headers: Annotated[dict[str, str], Field(max_length=MOST_HEADERS), AfterValidator(_headers)] = Field(
        default_factory=dict
    )
    include_result: StrictBool = False
    ordered: StrictBool = False
    rpm: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] | None = None
    concurrency: Annotated[int, Field(strict=True, ge=1, le=MOST_CONCURRENT)] = 10
    enabled: StrictBool = True


class EndpointRequest(_Fields):
    """`POST /v1/webhook_endpoints`. How it is signed is chosen once."""

    url: Url
    name: Name
    event_types: EventTypes
    signing: Kind = "v1"


class EndpointChange(_Fields):
    """`POST` or `PATCH /v1/webhook_endpoints/{id}`: what is absent stays, `headers` and `event_types` are set whole."""

    url: Url = ""
    name: Name = ""
    event_types: EventTypes = Field(default_factory=list)

    def given(self) -> dict[str, Any]:
        """Return what is to change."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class RotationRequest(Closed):
    """`POST /v1/webhook_endpoints/{id}/rotate_secret`: as OpenAI's, the old secret ends at once unless it is kept."""

    keep_old_secret_active_for_24_hours: StrictBool = False


class TestRequest(Closed):
    """`POST /v1/webhook_endpoints/{id}/test`: the type of the sample, one of the endpoint's unless it is named."""

    event_type: EventType | None = None


async def read(request: web.Request, model: type[EndpointRequest] | type[EndpointChange]) -> Any:
    """Return a request's body. Raises ApiError 400 with every fault."""
    asked = await body(request, model)
    if "url" in asked.model_fields_set and (wrong := url_fault(asked.url, request.app[STATE].config)):
        raise reading.refusal([Fault("url", wrong)])
    return asked
