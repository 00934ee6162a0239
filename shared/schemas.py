"""What callers send: the shape of a job, checked by pydantic, with every fault listed.

Job options are closed (an unknown one is a fault); the `body` is open and passes to the provider untouched.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from itertools import islice
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from shared.errors import Fault

Route = Literal["/v1/chat/completions", "/v1/embeddings", "/v1/responses", "/v1/messages"]
ROUTES = frozenset(get_args(Route))
DEFAULT_ROUTE: Route = "/v1/chat/completions"

_MOST_TOKENS = 10**9
_LIMITS = {"/v1/responses": ("max_output_tokens",), "/v1/messages": ("max_tokens",)}
MOST_FAULTS = 100
_MOST_LISTED = 1_000
_LONGEST_PART = 100
LONGEST_USER = 256


class Priority(StrEnum):
    """How soon a job is taken beside others of its lane."""

    INTERACTIVE = "interactive"
    STANDARD = "standard"
    BULK = "bulk"


def _utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("is out of range") from error


def _seconds_from_now(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return datetime.now(UTC) + timedelta(seconds=value)
        except (OverflowError, ValueError) as error:
            raise ValueError("is out of range") from error
    return value


def to_come(moment: datetime) -> datetime:
    """Return a moment that is in the future. Raises ValueError."""
    if moment <= datetime.now(UTC):
        raise ValueError("is in the past")
    return moment


MOST_DOLLARS = 10**9
"""Many such amounts add up within a bigint of nano-dollars."""

_AMOUNT = re.compile(r"[0-9]{1,10}(\.[0-9]{1,9})?")


def _dollars(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError('must be an amount in USD, as "1.50" or 1.5')
    text = value if isinstance(value, str) else format(Decimal(repr(value)), "f")
    if not _AMOUNT.fullmatch(text):
        raise ValueError('must be an amount in USD, as "1.50", not negative, with at most nine decimals')
    amount = Decimal(text)
    if amount > MOST_DOLLARS:
        raise ValueError(f"must be at most {MOST_DOLLARS:,} USD")
    return amount


Dollars = Annotated[Decimal, BeforeValidator(_dollars)]
Moment = Annotated[AwareDatetime, AfterValidator(_utc)]
MomentOrSeconds = Annotated[AwareDatetime, BeforeValidator(_seconds_from_now), AfterValidator(_utc)]
Metadata = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16),
]


_Needed = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^{}]+$")]
"""A custom id as `depends_on` has it, without what ends a placeholder."""


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Webhook(_Closed):
    """Where a job's event goes; whether the event carries the whole result."""

    url: Annotated[str, Field(max_length=2048)]
    include_result: bool = False


class JobRequest(_Closed):
    """`POST /v1/jobs`, and one line of a batch, which alone may wait for others: `depends_on` has their custom ids."""

    custom_id: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    method: Literal["POST"] = "POST"
    url: Route = DEFAULT_ROUTE
    body: dict[str, Any]
    priority: Priority = Priority.STANDARD
    run_at: Moment | None = None
    deadline: Annotated[MomentOrSeconds, AfterValidator(to_come)] | None = None
    max_cost_usd: Dollars | None = None
    webhook: Webhook | None = None
    depends_on: Annotated[list[_Needed], Field(min_length=1, max_length=10_000)] | None = None
    on_dependency_failure: Literal["fail", "continue"] = "fail"
    metadata: Metadata = Field(default_factory=dict)

    @model_validator(mode="after")
    def _times(self) -> Self:
        if self.deadline is not None and self.run_at is not None and self.run_at >= self.deadline:
            raise ValueError("run_at is not before deadline")
        return self


def body_faults(url: str, body: dict[str, Any]) -> list[Fault]:
    """Return what is wrong with a request body as far as every provider would agree; params start at `body`."""
    faults = []
    model = body.get("model")
    if not isinstance(model, str) or not model:
        faults.append(Fault("body.model", "must be a non-empty string"))
    elif len(model) > 256:
        faults.append(Fault("body.model", "is longer than 256 characters"))
    if not isinstance(body.get("stream", False), bool | None):
        faults.append(Fault("body.stream", "must be true or false"))
    if not isinstance(body.get("stream_options", {}), dict | None):
        faults.append(Fault("body.stream_options", "must be an object"))
    match url:
        case "/v1/chat/completions" | "/v1/messages":
            messages = body.get("messages")
            if not isinstance(messages, list) or not messages:
                faults.append(Fault("body.messages", "must be a non-empty list"))
            else:
                wrong = (
                    Fault(f"body.messages[{index}]", "must be an object with a string `role`")
                    for index, message in enumerate(messages)
                    if not isinstance(message, dict) or not isinstance(message.get("role"), str)
                )
                faults += islice(wrong, MOST_FAULTS)
            most = body.get("max_tokens")
            if url == "/v1/messages" and (not isinstance(most, int) or isinstance(most, bool) or most < 0):
                faults.append(Fault("body.max_tokens", "must be a number of tokens"))
        case "/v1/embeddings":
            if not isinstance(body.get("input"), str | list) or not body["input"]:
                faults.append(Fault("body.input", "must be a non-empty string or list"))
        case "/v1/responses":
            if not isinstance(body.get("input"), str | list) or not body["input"]:
                faults.append(Fault("body.input", "must be a non-empty string or list"))
            if not isinstance(body.get("background", False), bool | None):
                faults.append(Fault("body.background", "must be true or false"))
            elif body.get("background") and body.get("store") is False:
                faults.append(Fault("body.store", "must not be false: what runs in the background is stored"))
            if not isinstance(body.get("previous_response_id", ""), str | None):
                faults.append(Fault("body.previous_response_id", "must be a string"))
    return faults


def faults_of(error: ValidationError, *, prefix: str = "") -> list[Fault]:
    """Return pydantic's findings as faults with JSON-path params under `prefix`; of very many, how many they are."""
    if error.error_count() > _MOST_LISTED:
        return [Fault(prefix, f"has {error.error_count():,} faults")]
    faults = []
    for found in error.errors(include_url=False, include_context=False, include_input=False):
        path = prefix
        for part in found["loc"]:
            if part != "[key]":
                path = _below(path, part)
        faults.append(Fault(path, found["msg"].removeprefix("Value error, ")))
    return faults


def null_characters(value: object) -> list[Fault]:
    """Return a fault for strings and names that hold U+0000, which Postgres text cannot: for the first of them."""
    return list(islice(_null_characters(value, ""), MOST_FAULTS))


def _null_characters(value: object, path: str) -> Iterator[Fault]:
    match value:
        case str() if "\0" in value:
            yield Fault(path, "contains a NUL character")
        case dict():
            for key, item in value.items():
                name = _below(path, key)
                if "\0" in key:
                    yield Fault(name.replace("\0", "\\u0000"), "the name contains a NUL character")
                else:
                    yield from _null_characters(item, name)
        case list():
            for index, item in enumerate(value):
                yield from _null_characters(item, _below(path, index))


def _below(path: str, part: object) -> str:
    """Return the path of a part, of which nobody needs to read more than the beginning."""
    if isinstance(part, int):
        return f"{path}[{part}]"
    shown = str(part)
    if len(shown) > _LONGEST_PART:
        shown = shown[:_LONGEST_PART] + "…"
    return f"{path}.{shown}" if path else shown


def allowed_output(url: str, body: dict[str, Any]) -> int:
    """Return how long a request lets its answer be, 0 for any length; a vendor's own names are read too."""
    own = [body.get(name) for name in ("inferenceConfig", "generationConfig")]
    named = [one.get(name) for one in own if isinstance(one, dict) for name in ("maxTokens", "maxOutputTokens")]
    names = _LIMITS.get(url, ("max_completion_tokens", "max_tokens"))
    for value in (*(body.get(name) for name in names), *named):
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MOST_TOKENS:
            return value
    return 0


def end_user(url: str, body: dict[str, Any]) -> str | None:
    """Return for whom a request is, as far as it says so."""
    metadata = body.get("metadata")
    user = body.get("user")
    if url == "/v1/messages":
        user = metadata.get("user_id") if isinstance(metadata, dict) else None
    return user[:LONGEST_USER] if isinstance(user, str) and user else None
