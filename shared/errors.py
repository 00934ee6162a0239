"""What can go wrong, in two trees: a provider's answer (`ProviderError`) and our own answer to a caller (`ApiError`).

`HANDLING` is the one table that says what follows from each kind of provider error.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class ErrorKind(StrEnum):
    """Every way a call to a provider can end badly; the value is the metric label and the `error.code` of a job."""

    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    QUOTA_EXHAUSTED = "quota_exhausted"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    INVALID_RESPONSE = "invalid_response"
    INVALID_OUTPUT = "invalid_output"
    INVALID_REQUEST = "invalid_request"
    UNSUPPORTED = "unsupported_parameter"
    CONTEXT_TOO_LONG = "context_too_long"
    CONTENT_FILTERED = "content_filtered"
    INVALID_KEY = "invalid_key"
    MODEL_NOT_FOUND = "model_not_found"
    RESPONSE_TOO_LARGE = "response_too_large"
    BUDGET_EXHAUSTED = "insufficient_quota"
    MAX_COST = "max_cost_exceeded"
    UNPRICED = "unpriced_model"
    DEPENDENCY_FAILED = "dependency_failed"
    LEASE_LOST = "lease_lost"
    INTERNAL = "internal"


Chain = Literal["general", "context", "content"]
"""Why a job goes elsewhere: its target is down or does not have it, the window is too small, the content is refused."""

_Type = Literal[
    "invalid_request_error",
    "rate_limit_error",
    "insufficient_quota",
    "provider_error",
    "timeout_error",
    "internal_error",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Handling:
    """What follows from an error kind.

    `retry`: the same target may do better later. `other_key`: another key of the provider may do at once. `chain`: the
    fallbacks that may do, after `tries` at this target. `charge`: it counts against the job's attempts. `news`: what it
    says of the deployment, that it is asked too much (`pace`: it rests for the provider's Retry-After), that it is not
    well (`circuit`), that its key is refused (`key`), or nothing. `type`: the `error.type` a caller sees. `status` and
    `code`: what a synchronous caller gets, the code where OpenAI has one of its own for it.
    """

    retry: bool = False
    other_key: bool = False
    chain: Chain | None = None
    tries: int = 1
    charge: bool = True
    news: Literal["pace", "circuit", "key"] | None = None
    type: _Type
    status: int
    code: str | None = None


HANDLING: dict[ErrorKind, Handling] = {
    # It waits here for as long as it takes, unless it is told to wait for longer than `LONGEST_WAIT`.
    ErrorKind.RATE_LIMITED: Handling(
        retry=True, other_key=True, chain="general", tries=1_000_000, charge=False, news="pace",
        type="rate_limit_error", status=429, code="rate_limit_exceeded",
    ),
    ErrorKind.OVERLOADED: Handling(
        retry=True, chain="general", tries=2, news="circuit", type="provider_error", status=503
    ),
    ErrorKind.QUOTA_EXHAUSTED: Handling(
        other_key=True, chain="general", news="key", type="rate_limit_error", status=429, code="insufficient_quota"
    ),
    ErrorKind.SERVER_ERROR: Handling(
        retry=True, chain="general", tries=2, news="circuit", type="provider_error", status=502
    ),
    ErrorKind.TIMEOUT: Handling(retry=True, chain="general", news="circuit", type="timeout_error", status=504),
    ErrorKind.CONNECTION: Handling(retry=True, chain="general", news="circuit", type="provider_error", status=502),
    ErrorKind.INVALID_RESPONSE: Handling(
        retry=True, chain="general", tries=2, news="circuit", type="provider_error", status=502
    ),
    # Asked again with what was wrong, as often as the configuration has it: `after_attempt` knows these as `Invalid`.
    ErrorKind.INVALID_OUTPUT: Handling(retry=True, type="provider_error", status=502),
    ErrorKind.INVALID_REQUEST: Handling(type="invalid_request_error", status=400),
    ErrorKind.UNSUPPORTED: Handling(chain="general", type="invalid_request_error", status=400),
    ErrorKind.CONTEXT_TOO_LONG: Handling(
        chain="context", type="invalid_request_error", status=400, code="context_length_exceeded"
    ),
    ErrorKind.CONTENT_FILTERED: Handling(
        chain="content", type="invalid_request_error", status=400, code="content_filter"
    ),
    ErrorKind.INVALID_KEY: Handling(
        other_key=True, chain="general", news="key", type="provider_error", status=502
    ),
    ErrorKind.MODEL_NOT_FOUND: Handling(chain="general", type="invalid_request_error", status=404),
    ErrorKind.RESPONSE_TOO_LARGE: Handling(type="provider_error", status=502),
    ErrorKind.BUDGET_EXHAUSTED: Handling(type="insufficient_quota", status=429),
    ErrorKind.MAX_COST: Handling(type="insufficient_quota", status=429),
    ErrorKind.UNPRICED: Handling(type="invalid_request_error", status=400),
    ErrorKind.DEPENDENCY_FAILED: Handling(type="invalid_request_error", status=409),
    ErrorKind.LEASE_LOST: Handling(retry=True, type="internal_error", status=502),
    ErrorKind.INTERNAL: Handling(retry=True, type="internal_error", status=500),
}  # fmt: skip
"""Error kind by error kind what follows; `docs/errors.md` shows it as a table."""

LONGEST_WAIT = 60.0
"""The seconds that a job waits for its target when it could go elsewhere."""


@dataclass(frozen=True, slots=True)
class ProviderError:
    """A provider's refusal or failure, in our words. `retry_after` is in seconds; `message` never holds a secret."""

    kind: ErrorKind
    message: str
    retry_after: float | None = None
    status: int | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a request: where (`requests[3].body.model`), what, and the `error.code` it has alone."""

    param: str
    message: str
    code: str = "invalid_request"


class SluiceError(Exception):
    """Everything Sluice raises on purpose.

    SluiceError
    ├── ApiError            an answer to a caller, rendered as OpenAI's envelope
    │   └── Unavailable     Postgres or Redis is away: 503 with Retry-After
    └── ConfigError         a configuration that cannot be used, naming file and line
    """


class ApiError(SluiceError):
    """An answer to a caller: HTTP status and OpenAI's `{"error": {message, type, param, code}}`.

    `should_retry` tells the official SDKs whether sending the request again makes sense; None leaves it to the status.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        faults: tuple[Fault, ...] = (),
        retry_after: int | None = None,
        should_retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.code = code
        self.param = param
        self.faults = faults
        self.retry_after = retry_after
        self.should_retry = should_retry


class Unavailable(ApiError):
    """Postgres or Redis is away, or the front door holds as much as it may: try again shortly."""

    def __init__(self, message: str, *, retry_after: int = 2) -> None:
        super().__init__(503, message, type="server_error", code="unavailable", retry_after=retry_after)


class ConfigError(SluiceError):
    """A configuration that cannot be used; the message names the file, the line and the fix."""
