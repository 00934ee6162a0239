"""The HTTP client of the command line and the examples: one session, deadlines, retries that repeat no effect.

Not here: what the answers mean (`submission`, `jobs`, `batches`) and how they are shown (`output`, `progress`).
"""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar
from urllib.parse import quote

import aiohttp
import orjson

from shared.errors import SluiceError
from shared.retry import backoff, retry_after

Json = dict[str, Any]
T = TypeVar("T")

TIMEOUT = aiohttp.ClientTimeout(total=300, sock_connect=10, sock_read=120)
TRANSFER = aiohttp.ClientTimeout(total=3600, sock_connect=10)
PASSING = frozenset({429, 502, 503, 504})
FULL = {"rate_limit_exceeded": "rate limited", "queue_full": "the queue is full"}
"""What a person is told of a 429, by its code."""
TWIN_IN_FLIGHT = 409
RESULTS_AT_ONCE = 1000
BYTES_AT_ONCE = 8 * 2**20
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
SHORTEST_POLL, LONGEST_POLL = 0.1, 2.0


class CliError(SluiceError):
    """What a person at the command line is told, without a traceback; the exit code is 1."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Address:
    """Where the gateway is, and the key to it."""

    url: str
    key: str | None = field(repr=False)


def find_address(environ: Mapping[str, str], *, url: str | None = None, key: str | None = None) -> Address:
    """Return the gateway to talk to: the one given, else the environment's, else what `sluice up` runs here.

    The key is `SLUICE_API_KEY`, else `SLUICE_ADMIN_KEY`, else the file `admin_key` in the data directory.
    """
    found = url or environ.get("SLUICE_URL") or f"http://127.0.0.1:{environ.get('SLUICE_PORT') or 8080}"
    if not found.startswith(("http://", "https://")):
        raise CliError(f"the gateway's address must start with http:// or https://, not {found!r}")
    secret = key or environ.get("SLUICE_API_KEY") or environ.get("SLUICE_ADMIN_KEY")
    if not secret:
        try:
            secret = (Path(environ.get("SLUICE_DATA_DIR") or ".sluice") / "admin_key").read_text().strip()
        except OSError:
            secret = None
    return Address(found.rstrip("/").removesuffix("/v1"), secret or None)


class _RefusalError(Exception):
    """An answer that is an error; `again` says whether the same call may fare better later, `full` what is."""

    def __init__(self, error: CliError, *, again: bool, wait: float = 0.0, full: str | None = None) -> None:
        self.error = error
        self.again = again
        self.wait = wait
        self.full = full


class Client:
    """A session with one gateway: `async with Client(address) as client`.

    `patience` is for how many seconds a call that may be repeated is tried again. A gateway that never answered is
    not waited for: it is most likely not running. `on_wait` is told once of each wait that a limit asks for. `tenant`
    is whom the bootstrap key acts as.
    """

    def __init__(
        self,
        address: Address,
        *,
        patience: float = 30.0,
        tenant: str | None = None,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        self.address = address
        self._patience = patience
        self._tenant = tenant
        self._on_wait = on_wait
        self._random = random.Random()
        self._reached = False

    async def __aenter__(self) -> Self:
        headers = {"authorization": f"Bearer {self.address.key}"} if self.address.key else {}
        if self._tenant:
            headers["x-sluice-tenant"] = self._tenant
        self._session = aiohttp.ClientSession(headers=headers, timeout=TIMEOUT)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def get(self, path: str, **query: str | int | None) -> Json:
        """Return the JSON at a path; a query's None is left out. Raises CliError."""
        return await self._retried(lambda: self._json("GET", path, query=_query(query)), repeatable=True)

    async def post(
        self, path: str, body: object = None, *, idempotency_key: str | None = None, repeatable: bool = False
    ) -> Json:
        """Post JSON and return the answer; tried again only with a key or where it is `repeatable`. Raises CliError."""
        data = b"" if body is None else body if isinstance(body, bytes) else orjson.dumps(body)
        headers = {"idempotency-key": idempotency_key} if idempotency_key else {}
        return await self._retried(
            lambda: self._json("POST", path, data=data, headers=headers), repeatable=repeatable or bool(idempotency_key)
        )

    async def patch(self, path: str, body: object) -> Json:
        """Change what is at a path, which may be repeated, and return the answer. Raises CliError."""
        data = orjson.dumps(body)
        return await self._retried(lambda: self._json("PATCH", path, data=data), repeatable=True)

    async def delete(self, path: str) -> Json:
        """Delete what is at a path, which may be repeated, and return the answer. Raises CliError."""
        return await self._retried(lambda: self._json("DELETE", path), repeatable=True)

    async def upload(self, path: str, file: Path, fields: Mapping[str, str]) -> Json:
        """Post a file as a form with these fields, once, and return the answer. Raises CliError."""
        form = aiohttp.FormData(fields, quote_fields=False)
        with file.open("rb") as content:
            form.add_field("file", content, filename=file.name)
            return await self._retried(lambda: self._json("POST", path, data=form), repeatable=False)

    async def download(self, path: str, to: Callable[[], AbstractContextManager[BinaryIO]]) -> int:
        """Write what is at a path, once, to what `to` opens when it comes; return its bytes. Raises CliError."""
        return await self._retried(lambda: self._copied(path, to), repeatable=False)

    async def results(self, batch_id: str, *, after: str | None = None) -> list[Json]:
        """Return the next lines of a batch's results behind the cursor `after`; none when no more have ended yet.

        A page ends after 1,000 lines or about 8 MB, whichever comes first, so memory is bounded. Raises CliError.
        """
        path = f"/v1/batches/{quote(batch_id, safe='')}/results"
        query = _query({"after": after, "limit": RESULTS_AT_ONCE})
        return await self._retried(lambda: self._lines(path, query), repeatable=True)

    async def follow(self, batch_id: str, *, after: str | None = None) -> AsyncIterator[tuple[Json, list[Json]]]:
        """Yield a batch and result lines behind the cursor `after`, until it has ended and there are no more.

        The lines are empty when nothing is new. A job that was run again has a second line. Raises CliError.
        """
        pause = SHORTEST_POLL
        while True:
            batch = await self.get(f"/v1/batches/{quote(batch_id, safe='')}")
            idle = True
            while lines := await self.results(batch_id, after=after):
                after = lines[-1]["cursor"]
                idle = False
                yield batch, lines
            if idle:
                yield batch, []
            if batch["status"] in ENDED:  # as it was before the lines were read, so none can be missing
                return
            pause = min(pause * 1.5, LONGEST_POLL) if idle else SHORTEST_POLL
            await asyncio.sleep(pause)

    async def _json(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        data: bytes | aiohttp.FormData = b"",
        headers: dict[str, str] | None = None,
    ) -> Json:
        is_json = isinstance(data, bytes)
        sent = {**(headers or {}), **({"content-type": "application/json"} if data and is_json else {})}
        timeout, url = TIMEOUT if is_json else TRANSFER, self.address.url + path
        async with self._session.request(
            method, url, params=query, data=data or None, headers=sent, timeout=timeout
        ) as response:
            await _check(response)
            answer = _parsed(await response.read())
        if not isinstance(answer, dict):
            raise CliError(f"{self.address.url} does not answer as a Sluice gateway does")
        return answer

    async def _copied(self, path: str, to: Callable[[], AbstractContextManager[BinaryIO]]) -> int:
        size = 0
        async with self._session.get(self.address.url + path, timeout=TRANSFER) as response:
            await _check(response)
            with to() as out:
                async for piece in response.content.iter_any():
                    size += out.write(piece)
        return size

    async def _lines(self, path: str, query: dict[str, str]) -> list[Json]:
        lines: list[Json] = []
        pending: list[bytes] = []
        read = 0
        async with self._session.get(self.address.url + path, params=query) as response:
            await _check(response)
            async for piece in response.content.iter_any():
                read += len(piece)
                if b"\n" not in piece:
                    pending.append(piece)
                    continue
                *whole, tail = b"".join([*pending, piece]).split(b"\n")
                pending = [tail]
                lines += [_line(text) for text in whole if text]
                if lines and read > BYTES_AT_ONCE:
                    return lines
        rest = b"".join(pending)
        return [*lines, _line(rest)] if rest else lines

    async def _retried(self, once: Callable[[], Awaitable[T]], *, repeatable: bool) -> T:
        deadline = time.monotonic() + self._patience
        failures = 0
        while True:
            wait, full = 0.0, None
            try:
                answer = await once()
            except _RefusalError as refusal:
                self._reached = True
                error, again, wait, full = refusal.error, refusal.again, refusal.wait, refusal.full
            except (aiohttp.ClientError, TimeoutError) as lost:
                error, again = self._unreachable(lost), self._reached
            else:
                self._reached = True
                return answer
            failures += 1
            pause = backoff(failures, self._random, at_least=wait)
            if not (again and repeatable) or time.monotonic() + pause > deadline:
                raise error
            if full and self._on_wait:
                self._on_wait(f"{full}, trying again in {math.ceil(pause)} s")
            await asyncio.sleep(pause)

    def _unreachable(self, lost: BaseException) -> CliError:
        reason = str(lost) or type(lost).__name__
        if isinstance(lost, aiohttp.ClientConnectorError) and not self._reached:
            return CliError(
                f"no gateway answers at {self.address.url} ({reason}). Start one with `sluice up`, "
                "or name another with --url or SLUICE_URL"
            )
        return CliError(f"the connection to {self.address.url} failed: {reason}")


def _query(values: Mapping[str, str | int | None]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value is not None}


def _parsed(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _line(text: bytes) -> Json:
    line = _parsed(text)
    if not isinstance(line, dict) or not isinstance(line.get("cursor"), str):
        raise CliError("the gateway sent a result line that is not one")
    return line


async def _check(response: aiohttp.ClientResponse) -> None:
    """Raise `_RefusalError` where the answer is an error, in the words of its envelope."""
    if response.status < 400:
        return
    answer = _parsed(await response.read())
    envelope = answer.get("error") if isinstance(answer, dict) else None
    detail = envelope if isinstance(envelope, dict) else {}
    message = str(detail.get("message") or f"{response.status} {response.reason}")
    if response.status == 401:
        message += " (set SLUICE_API_KEY, or SLUICE_ADMIN_KEY)"
    elif request_id := response.headers.get("x-request-id"):
        message += f" (request {request_id})"
    exhausted = detail.get("code") == "insufficient_quota"
    twin = response.status == TWIN_IN_FLIGHT and "retry-after" in response.headers
    wait = retry_after({name.lower(): value for name, value in response.headers.items()})
    raise _RefusalError(
        CliError(message, status=response.status),
        again=(response.status in PASSING or twin) and not exhausted,
        wait=wait or 0.0,
        full=FULL.get(str(detail.get("code"))) if response.status == 429 else None,
    )
