"""One POST to a receiver of webhooks, which may do anything: hang, drip, never end, break its TLS, close at once."""

import asyncio
import errno
import time
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

from shared import retry

MOST_ANSWER_BYTES = 64 * 1024
ANSWER_SECONDS = 1.0
"""How long an answer's body is read after its status came; the status is what counts."""
EXCERPT_BYTES = 500
_ERROR_CHARACTERS = 500
_OURS = frozenset({errno.EMFILE, errno.ENFILE})


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver said: a status, or an error in words.

    `asked` are the seconds that it asks to wait, `excerpt` is the beginning of its body. Where the error is `ours`, we
    lacked a file descriptor: nothing was sent.
    """

    ms: int
    status: int | None = None
    error: str | None = None
    asked: float | None = None
    excerpt: str | None = None
    ours: bool = False

    @property
    def good(self) -> bool:
        """Whether it took the event."""
        return self.status is not None and 200 <= self.status < 300


async def post(
    client: aiohttp.ClientSession, url: str, body: bytes, headers: Mapping[str, str], *, timeout: float
) -> Answer:
    """Send a body, and wait `timeout` seconds for the status that answers it."""
    begun = time.monotonic()
    try:
        async with asyncio.timeout(timeout):
            response = await _response(client, url, body, headers)
    except TimeoutError:
        return Answer(_ms(begun), error=f"no answer within {timeout:g} s")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        words = printable(f"{type(error).__name__}: {error}"[:_ERROR_CHARACTERS])
        return Answer(_ms(begun), error=words, ours=isinstance(error, OSError) and error.errno in _OURS)
    ms, asked = _ms(begun), retry.retry_after({name.lower(): value for name, value in response.headers.items()})
    return Answer(ms, response.status, asked=asked, excerpt=printable(await _beginning(response)))


async def _response(
    client: aiohttp.ClientSession, url: str, body: bytes, headers: Mapping[str, str]
) -> aiohttp.ClientResponse:
    try:
        return await client.post(url, data=body, headers=headers, allow_redirects=False)
    except (aiohttp.ServerDisconnectedError, ConnectionResetError):
        # Perhaps it had closed a connection that was kept; an event that comes twice has the same id.
        return await client.post(url, data=body, headers=headers, allow_redirects=False)


async def _beginning(response: aiohttp.ClientResponse) -> str:
    """Return the beginning of an answer's body; a connection on which more is to come is closed."""
    head, size = b"", 0
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            while size <= MOST_ANSWER_BYTES and (piece := await response.content.readany()):
                size += len(piece)
                head += piece[: EXCERPT_BYTES - len(head)]
    except (TimeoutError, aiohttp.ClientError, OSError):
        pass
    finally:
        response.release()  # which closes what has not ended
    return head.decode(errors="replace")


def printable(text: str) -> str:
    """Return text without what a terminal or Postgres would stumble over."""
    return "".join(one if one.isprintable() or one in "\n\t" else "\N{REPLACEMENT CHARACTER}" for one in text)


def _ms(begun: float) -> int:
    return round((time.monotonic() - begun) * 1000)
