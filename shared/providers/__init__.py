"""Provider adapters: one file per vendor, whose name is the `kind` in the configuration.

Vendors that differ from OpenAI in little share one file: they are rows of the table in `_vendors.py`.

An adapter is a module with a few pure functions (`Adapter` below). It builds a request and reads an answer, whole or
streamed; who sends it, how long it may take and what a failure costs is decided elsewhere, so no file here does any
I/O. Files whose name begins with `_` are no vendors: they hold what adapters share.
"""

import importlib
import pkgutil
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol, cast

from shared.errors import Fault, ProviderError
from shared.providers._vendors import VENDORS


@dataclass(frozen=True, slots=True)
class Call:
    """What the caller asked for: `url` is the route (`/v1/chat/completions`), `body` the request as JSON values.

    `attempt_id` (`job_…-3`) travels upstream as a client request id, for the vendor's support to find. `model` is the
    vendor's own name of what the body names as the caller does.
    """

    url: str
    body: dict[str, Any]
    attempt_id: str
    model: str = ""

    @property
    def stream(self) -> bool:
        """Whether the answer is wanted piece by piece."""
        return bool(self.body.get("stream"))


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where a call goes: a provider's base URL and the vendor's own name of the model."""

    provider: str
    kind: str
    base_url: str
    model: str


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request ready to be sent; `headers` hold the credential and are never logged."""

    url: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An answer that was read whole; header names are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call, normalised: `input` includes `cached` and `cache_write`; `output` includes `reasoning`."""

    input: int = 0
    output: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Completion:
    """A good answer: `body` is JSON in OpenAI's shape, kept as bytes; `service_tier` is the one it was served at."""

    body: bytes = field(repr=False)
    usage: Usage
    model: str
    request_id: str | None = None
    service_tier: str | None = None


class StreamReader(Protocol):
    """Reads one streamed answer. What it returns piece by piece and at the end say the same.

    `done` tells that the vendor has said it is over, so that nobody waits for the connection's end.
    """

    @property
    def done(self) -> bool: ...  # noqa: D102

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Take bytes as they arrive, cut anywhere; return what they complete, as chunks in OpenAI's shape."""

    def last(self) -> list[dict[str, Any]]:
        """Return the chunks that were still open when the connection ended."""

    def end(self) -> Completion | ProviderError:
        """Return the whole answer once the connection has ended, as if it had not been streamed.

        One that broke off or held an error is a `ProviderError`.
        """


class Adapter(Protocol):
    """What a provider file holds."""

    DEFAULT_BASE_URL: str
    ROUTES: frozenset[str]
    """The routes it serves itself, of `/v1/chat/completions`, `/v1/embeddings`, `/v1/responses`, `/v1/messages`."""

    def faults(self, call: Call) -> list[Fault]:
        """Return what the vendor cannot do of what is asked, with code `unsupported_parameter`.

        `param` is a path such as `body.seed`; one that names a whole top-level parameter can be dropped. Parameters
        that OpenAI does not know are the vendor's own and no fault: they are passed on.
        """

    def request(self, call: Call, deployment: Deployment, key: str | None) -> HttpRequest:
        """Build the vendor's request; `call` has no faults and its route is one of `ROUTES`."""

    def completion(self, response: HttpResponse, call: Call) -> Completion | ProviderError:
        """Read a 2xx answer; one that is broken, empty or an error in disguise is a `ProviderError`."""

    def stream(self, head: HttpResponse, call: Call) -> StreamReader:
        """Return what reads a streamed 2xx answer; `head` is the answer without its body."""

    def error(self, response: HttpResponse) -> ProviderError:
        """Read any other answer."""


class Listing(Protocol):
    """What a provider file may hold besides: a question that costs nothing and that only a good key has answered.

    There is none where the vendor's list of models is open to everybody, or nobody knows.
    """

    def __call__(self, base_url: str, key: str | None) -> HttpRequest:
        """Build the request for the vendor's list of models."""


@cache
def kinds() -> list[str]:
    """Return the names of the provider files, and of the vendors that one of them has a table of."""
    files = {module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")}
    return sorted(files | VENDORS.keys())


@cache
def adapter(kind: str) -> Adapter:
    """Return the adapter of a kind. Raises KeyError for one that is neither a file nor a vendor in the table."""
    if kind not in kinds():
        raise KeyError(kind)
    if kind in VENDORS:
        return cast("Adapter", importlib.import_module(f"{__name__}.openai_compatible").bound(kind))
    return cast("Adapter", importlib.import_module(f"{__name__}.{kind}"))


def listing(kind: str, base_url: str, key: str | None) -> HttpRequest | None:
    """Return the request for a kind's list of models, None where it has none that is free and asks for the key."""
    found = cast("Listing | None", getattr(adapter(kind), "listing", None))
    return None if found is None else found(base_url, key)
