"""What a caller says of a batch: where its lines are, what holds for all of them, when it must be done."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from shared.config_values import seconds
from shared.schemas import Dollars, Metadata, MomentOrSeconds, Priority, Route, Webhook, to_come

LONGEST_WINDOW = 365 * 86_400
_SYSTEM_ROLES = frozenset({"system", "developer"})


def _window(text: str) -> str:
    found = seconds(text)
    if not isinstance(found, float) or not 0 < found <= LONGEST_WINDOW:
        raise ValueError("must be a duration of up to 365 days, such as 24h, 30m or 7d")
    return text


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Defaults(_Closed):
    """What holds for every line of a batch that does not say otherwise.

    `system` goes before the messages of a line that has no such message of its own; `max_cost_usd` is a line's.
    """

    model: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    priority: Priority | None = None
    deadline: Annotated[MomentOrSeconds, AfterValidator(to_come)] | None = None
    max_cost_usd: Dollars | None = None
    system: Annotated[str, Field(min_length=1, max_length=1_000_000)] | None = None

    def stored(self) -> dict[str, Any]:
        """Return them as JSON, without what is not set."""
        return self.model_dump(mode="json", exclude_none=True)


class ExpiresAfter(_Closed):
    """How long the batch's output and error files are to be had; its results stay as long as its jobs."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3_600, le=2_592_000)]


class BatchRequest(_Closed):
    """`POST /v1/batches`: with its lines inline, or in a file that was uploaded.

    The lines are not looked at here, so that every fault has its index or line.
    """

    requests: Annotated[list[Any], Field(min_length=1)] | None = None
    input_file_id: str | None = None
    endpoint: Route | None = None
    completion_window: Annotated[str, Field(max_length=32), AfterValidator(_window)] | None = None
    defaults: Defaults = Defaults()
    max_cost_usd: Dollars | None = None
    webhook: Webhook | None = None
    output_expires_after: ExpiresAfter | None = None
    metadata: Metadata = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.requests is None) == (self.input_file_id is None):
            raise ValueError("must have either `requests` or `input_file_id`")
        return self

    def expires_at(self, now: datetime) -> datetime | None:
        """Return when its window closes: what has not ended by then expires."""
        if self.completion_window is None:
            return None
        return now + timedelta(seconds=float(str(seconds(self.completion_window))))


def with_defaults(line: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line with what it leaves to the batch, but for the deadline; `defaults` are as `Defaults.stored`."""
    line = {name: defaults[name] for name in ("priority", "max_cost_usd") if name in defaults} | line
    body = line.get("body")
    if isinstance(body, dict):
        if "model" in defaults:
            body = {"model": defaults["model"], **body}
        if "system" in defaults:
            body = _with_system(str(line.get("url")), body, defaults["system"])
        line["body"] = body
    return line


def _with_system(url: str, body: dict[str, Any], system: str) -> dict[str, Any]:
    match url, body:
        case "/v1/responses", _:
            return {"instructions": system, **body}
        case "/v1/messages", _:
            return {"system": system, **body}
        case "/v1/embeddings", _:
            return body
        case _, {"messages": [*messages]}:
            roles = {one.get("role") for one in messages if isinstance(one, dict)}
            return (
                body
                if roles & _SYSTEM_ROLES
                else body | {"messages": [{"role": "system", "content": system}, *messages]}
            )
    return body
