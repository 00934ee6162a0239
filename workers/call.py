"""One call to a provider over HTTP: built and read by the provider's adapter, sent here.

No retry happens here, and no transaction is open meanwhile. Cancelling the call closes its connection.
"""

import asyncio
import io
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
import orjson

from shared import ids
from shared.config import Provider
from shared.db.claims import Claim
from shared.errors import ErrorKind, ProviderError
from shared.lifecycle import Stop
from shared.providers import Adapter, Call, Completion, Deployment, HttpRequest, HttpResponse
from shared.serving import MESSAGES, RESPONSES, serving
from workers.relay import Relay

LARGE_BODY = 2**19
DRAIN_SECONDS = 0.2
_LIMITS = {RESPONSES: "max_output_tokens", MESSAGES: "max_tokens"}


@dataclass(frozen=True, slots=True)
class Answered:
    """What a call came to.

    Whether it went out at all, the chunks that came of it, the ms it took, and the headers of its answer.
    """

    outcome: Completion | ProviderError | Stop
    sent: bool = True
    chunks: int = 0
    ms: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)


def session(*, connections: int, connect_timeout: float) -> aiohttp.ClientSession:
    """Return the one client of a worker process: connections are reused; each call sets its own total time-out."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=60, ttl_dns_cache=60),
        timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=connect_timeout),
        headers={"user-agent": "sluice"},
        cookie_jar=aiohttp.DummyCookieJar(),
    )


async def call(
    client: aiohttp.ClientSession,
    claim: Claim,
    provider: Provider,
    relay: Relay,
    *,
    key_name: str,
    longest: float,
    most_bytes: int,
) -> Answered:
    """Run a claimed job's request against its provider; never raises but for cancellation.

    It takes at most the provider's time-out, `longest` seconds, and what is left to the job's deadline; an answer of
    more than `most_bytes` is an error. The chunks of a streamed answer go to `relay` as they come.
    """
    speaks = serving(provider.kind, claim.url)
    deployment = Deployment(
        provider=claim.provider,
        kind=provider.kind,
        base_url=(provider.base_url or speaks.DEFAULT_BASE_URL).rstrip("/"),
        model=claim.upstream_model,
    )
    key = next((one for one in provider.keys if one.name == key_name), None)
    limit = min(provider.timeout, longest)
    left = (claim.deadline - datetime.now(UTC)).total_seconds() if claim.deadline else limit
    if left <= 0:
        return Answered(Stop.DEADLINE, sent=False)
    body = orjson.loads(claim.body)
    if claim.output_cap is not None:
        body[_LIMITS.get(claim.url, "max_completion_tokens")] = claim.output_cap
    asked = Call(claim.url, body, f"{ids.show('job', claim.id)}-{claim.attempt}", claim.upstream_model)
    if faults := speaks.faults(asked):
        said = "; ".join(f"{fault.param}: {fault.message}" for fault in faults)
        return Answered(ProviderError(ErrorKind.UNSUPPORTED, said), sent=False)
    outcome: Completion | ProviderError | Stop
    headers: dict[str, str] = {}
    begun = time.monotonic()
    try:
        request = speaks.request(asked, deployment, key.value.get_secret_value() if key else None)
        async with asyncio.timeout(min(limit, left)):
            outcome = await _exchange(client, request, speaks, asked, relay, most_bytes, headers, provider.stall)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        return Answered(_not_connected(error), sent=False)
    except TimeoutError:
        outcome = Stop.DEADLINE if left < limit else ProviderError(ErrorKind.TIMEOUT, f"no answer within {limit:g} s")
    except (aiohttp.ClientError, OSError) as error:
        outcome = _not_connected(error)
    return Answered(outcome, chunks=relay.sent, ms=(time.monotonic() - begun) * 1000, headers=headers)


def _not_connected(error: Exception) -> ProviderError:
    return ProviderError(ErrorKind.CONNECTION, f"{type(error).__name__}: {error}"[:500])


async def _exchange(
    client: aiohttp.ClientSession,
    request: HttpRequest,
    speaks: Adapter,
    asked: Call,
    relay: Relay,
    most_bytes: int,
    headers: dict[str, str],
    stall: float,
) -> Completion | ProviderError:
    # A large body goes out in pieces: whole, it would hold up the event loop.
    body = io.BytesIO(request.body) if len(request.body) > LARGE_BODY else request.body
    async with client.request(
        request.method, request.url, headers=request.headers, data=body, allow_redirects=False
    ) as response:
        headers |= {name.lower(): value for name, value in response.headers.items()}
        head = HttpResponse(response.status, headers, b"")
        good = 200 <= response.status < 300
        streamed = asked.stream and good and response.content_type != "application/json"
        pieces_of = _unless_stalled(response, stall) if streamed else response.content.iter_any()
        reader = speaks.stream(head, asked) if streamed else None
        if reader is not None:
            relay.begin()
        pieces, size = [], 0
        try:
            async for piece in pieces_of:
                size += len(piece)
                if size > most_bytes:
                    response.close()
                    message = f"the answer exceeds {most_bytes} bytes"
                    return ProviderError(ErrorKind.RESPONSE_TOO_LARGE, message, status=response.status)
                if reader is None:
                    pieces.append(piece)
                else:
                    relay.send(_wanted(reader.feed(piece), asked))
                    if reader.done:
                        await _drain(response)
                        break
        except TimeoutError:
            if reader is None or isinstance(reader.end(), ProviderError):
                return ProviderError(ErrorKind.TIMEOUT, f"the stream said nothing for {stall:g} s")
        except (aiohttp.ClientError, OSError):
            # What was said whole has been paid for, however its connection ended.
            if reader is None or isinstance(reader.end(), ProviderError):
                raise
    if reader is not None:
        relay.send(_wanted(reader.last(), asked))
        return reader.end()
    whole = HttpResponse(response.status, headers, b"".join(pieces))
    return speaks.completion(whole, asked) if good else speaks.error(whole)


async def _unless_stalled(response: aiohttp.ClientResponse, seconds: float) -> AsyncIterator[bytes]:
    """Yield a streamed answer as it comes. Raises TimeoutError where nothing comes for so long."""
    while not response.content.at_eof():
        async with asyncio.timeout(seconds):
            piece = await response.content.readany()
        if piece:
            yield piece


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Give the connection a moment to end its answer, so that it can be used again."""
    with suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while not response.content.at_eof():
                await response.content.readany()


def _wanted(chunks: list[dict[str, Any]], asked: Call) -> list[dict[str, Any]]:
    """Return the chunks that the caller asked for: the one with the usage is always asked of the provider."""
    options = asked.body.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage"):
        return chunks
    return [chunk for chunk in chunks if chunk.get("choices") != [] or not chunk.get("usage")]
