"""One call to a provider over HTTP: built and read by the provider's adapter, sent here.

No retry happens here, and no transaction is open meanwhile. Cancelling the call closes its connection.
"""

import asyncio
import io
import random
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp
import orjson

from shared import ids
from shared.config import Key, Provider
from shared.db.claims import Claim
from shared.errors import ErrorKind, ProviderError
from shared.lifecycle import Stop
from shared.providers import Call, Completion, Deployment, HttpRequest, HttpResponse, adapter

LARGE_BODY = 2**19


@dataclass(frozen=True, slots=True)
class Answered:
    """What a call came to, which key it went out with, and whether it went out at all."""

    outcome: Completion | ProviderError | Stop
    key_name: str | None
    sent: bool = True


def session(*, connections: int, connect_timeout: float) -> aiohttp.ClientSession:
    """Return the one client of a worker process: connections are reused; each call sets its own total time-out."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=60, ttl_dns_cache=60),
        timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=connect_timeout),
        headers={"user-agent": "sluice"},
        cookie_jar=aiohttp.DummyCookieJar(),
    )


def pick_key(keys: tuple[Key, ...], rng: random.Random) -> Key | None:
    """Return one of a provider's keys at random by weight, None where it needs none."""
    if len(keys) < 2:
        return keys[0] if keys else None
    return rng.choices(keys, weights=[key.weight for key in keys])[0]


async def call(
    client: aiohttp.ClientSession,
    claim: Claim,
    provider: Provider,
    *,
    longest: float,
    most_bytes: int,
    rng: random.Random,
) -> Answered:
    """Run a claimed job's request against its provider; never raises but for cancellation.

    It takes at most the provider's time-out, `longest` seconds, and what is left to the job's deadline; an answer of
    more than `most_bytes` is an error.
    """
    speaks = adapter(provider.kind)
    deployment = Deployment(
        provider=claim.provider,
        kind=provider.kind,
        base_url=(provider.base_url or speaks.DEFAULT_BASE_URL).rstrip("/"),
        model=claim.upstream_model,
    )
    key = pick_key(provider.keys, rng)
    key_name = key.name if key else None
    asked = Call(claim.url, orjson.loads(claim.body), f"{ids.show('job', claim.id)}-{claim.attempt}")
    limit = min(provider.timeout, longest)
    left = (claim.deadline - datetime.now(UTC)).total_seconds() if claim.deadline else limit
    if left <= 0:
        return Answered(Stop.DEADLINE, key_name, sent=False)
    try:
        request = speaks.request(asked, deployment, key.value.get_secret_value() if key else None)
        async with asyncio.timeout(min(limit, left)):
            response = await _send(client, request, most_bytes)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        failure = ProviderError(ErrorKind.CONNECTION, f"{type(error).__name__}: {error}"[:500])
        return Answered(failure, key_name, sent=False)
    except TimeoutError:
        if left < limit:
            return Answered(Stop.DEADLINE, key_name)
        return Answered(ProviderError(ErrorKind.TIMEOUT, f"no answer within {limit:g} s"), key_name)
    except (aiohttp.ClientError, OSError) as error:
        return Answered(ProviderError(ErrorKind.CONNECTION, f"{type(error).__name__}: {error}"[:500]), key_name)
    if isinstance(response, ProviderError):
        return Answered(response, key_name)
    if 200 <= response.status < 300:
        return Answered(speaks.completion(response, asked), key_name)
    return Answered(speaks.error(response), key_name)


async def _send(client: aiohttp.ClientSession, request: HttpRequest, most_bytes: int) -> HttpResponse | ProviderError:
    # A large body goes out in pieces: whole, it would hold up the event loop.
    body = io.BytesIO(request.body) if len(request.body) > LARGE_BODY else request.body
    async with client.request(
        request.method, request.url, headers=request.headers, data=body, allow_redirects=False
    ) as response:
        pieces, size = [], 0
        async for piece in response.content.iter_any():
            size += len(piece)
            if size > most_bytes:
                response.close()
                return ProviderError(
                    ErrorKind.RESPONSE_TOO_LARGE, f"the answer exceeds {most_bytes} bytes", status=response.status
                )
            pieces.append(piece)
        headers = {name.lower(): value for name, value in response.headers.items()}
        return HttpResponse(response.status, headers, b"".join(pieces))
