"""Probes: asks a provider that failed, or that refused a key, for its list of models, which costs nothing.

Only of what is not well is anything asked, and only of vendors whose list is known to be free and to need the key. What
a list cannot tell, it does not decide: a good answer lets the next job try at once, and that job's fate counts.
"""

import asyncio
from functools import partial

import aiohttp
import structlog

from shared import providers
from shared.cancellation import heed
from shared.config import Provider
from shared.errors import ErrorKind
from shared.limits import deployments_json, key_mark
from shared.providers import HttpRequest
from shared.queue import Queue, RedisAway, prefix
from shared.queue.unwell import Unwell, unwell

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
EVERY_SECONDS = 15.0
"""How often a key is asked after, by all processes together."""
_ANSWER_SECONDS = 5.0
_QUOTA_SECONDS = 120.0
"""For how long a key without quota is not asked after: longer than until a job tries it again."""


async def probe(queue: Queue, client: aiohttp.ClientSession, provider: Provider, *, name: str) -> None:
    """Ask after what is not well, until cancelled; at once done where the kind has no free list."""
    if listing(provider, None) is None:
        return
    limits = deployments_json(provider)
    look = partial(unwell, queue, name, limits=limits, look=LOOK_SECONDS, every=EVERY_SECONDS)
    while True:
        heed()
        try:
            for one in await look():
                well = await _ask(client, provider, one, name=name)
                if well is not None:
                    await look(said=(one, well))
        except RedisAway as error:
            log.warning("probe.waited", provider=name, error=str(error))
        await asyncio.sleep(LOOK_SECONDS)


async def spare(queue: Queue, provider: Provider, key: str, kind: ErrorKind, *, name: str) -> None:
    """Have a key that was refused for want of quota not asked after: a list of models says nothing of that."""
    if kind is ErrorKind.QUOTA_EXHAUSTED:
        mark = next((key_mark(one.value) for one in provider.keys if one.name == key), "key:")
        await queue.redis.set(f"{prefix(name)}probe:{key}:{mark}", 1, px=int(_QUOTA_SECONDS * 1000))


def listing(provider: Provider, key: str | None) -> HttpRequest | None:
    """Return the request for a provider's list of models, None where none is known that is free."""
    base_url = provider.base_url or providers.adapter(provider.kind).DEFAULT_BASE_URL
    return providers.listing(provider.kind, base_url.rstrip("/"), key)


async def _ask(client: aiohttp.ClientSession, provider: Provider, one: Unwell, *, name: str) -> bool | None:
    """Return whether a key is well, None where the answer does not say."""
    key = next((key.value.get_secret_value() for key in provider.keys if key.name == one.key), None)
    request = listing(provider, key)
    assert request is not None
    try:
        async with client.request(
            request.method,
            request.url,
            headers=request.headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=_ANSWER_SECONDS),
        ) as response:
            status: int | str = response.status
            response.close()  # what is in the list matters to nobody
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        status = type(error).__name__
    log.info("deployment.probed", provider=name, key_name=one.key, answer=status)
    if isinstance(status, int) and 200 <= status < 300:
        return True
    # A key that may not list models answers 403 and may be good all the same.
    return False if status == 401 else None
