"""Whose key it is: recognised by its SHA-256, kept in memory, forgotten everywhere within a second of any change.

A change is announced on a channel. For the moments in which Redis is away, the version of tenants and keys in Postgres
is looked at twice a second. What a key may do is `access`.
"""

import asyncio
import hashlib
import hmac
import math
import re
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from typing import Generic, TypeVar
from urllib.parse import unquote

import structlog
from aiohttp import web

from gateway_api.access import Caller
from gateway_api.caller_limits import AtDoor, TenantLimits, by_tenant
from shared.cancellation import heed
from shared.db import api_keys, rate_limits, tenants
from shared.db import engine as db
from shared.db.api_keys import KeyRow
from shared.db.tenants import DEFAULT, TenantRow
from shared.errors import ApiError, Unavailable
from shared.group_commit import Full, GroupCommit
from shared.queue import Queue, RedisAway

log = structlog.get_logger(__name__)

CHANGED = "sluice:access"
"""The channel on which a change to tenants, teams or keys is announced; the messages are empty."""

TENANT_HEADER = "X-Sluice-Tenant"
LOOK_SECONDS = 0.5
REFUSED_SECONDS = 5.0
MOST_KEPT = 10_000
_AWAY_SECONDS = 0.5
_KEY_SHAPE = re.compile(r"(?:sk-sl-|sluice_)[A-Za-z0-9_-]{16}")
_KEY_NAMES = frozenset({"key", "api_key", "apikey", "api-key", "access_token", "token", "auth", "authorization"})

V = TypeVar("V")


class _Recent(Generic[V]):
    """What was looked up lately, up to `MOST_KEPT` of it; a flood of strangers' keys does not push out good ones."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes | str, V] = OrderedDict()

    def get(self, name: bytes | str) -> V | None:
        found = self._kept.get(name)
        if found is not None:
            self._kept.move_to_end(name)
        return found

    def put(self, name: bytes | str, value: V) -> None:
        self._kept[name] = value
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)


class Callers:
    """Recognises callers for one front door. `admin_key` is the bootstrap key, which may act in any tenant."""

    def __init__(self, admin_key: str, engine: db.Engine, queue: Queue) -> None:
        self._admin_key = admin_key.encode()
        self._bootstrap = _digest(self._admin_key)
        self._engine = engine
        self._queue = queue
        self._known: _Recent[tuple[Caller, float]] = _Recent()
        self._refused: _Recent[tuple[str, float]] = _Recent()
        self._tenants: _Recent[Caller] = _Recent()
        self._limits: _Recent[TenantLimits] = _Recent()
        self._changes = 0
        self._lookups: GroupCommit[bytes, KeyRow | None] = GroupCommit(self._look_up, most=500, waiting=2_000)
        self._limited: GroupCommit[str, TenantLimits] = GroupCommit(self._look_up_limits, most=500, waiting=10_000)

    async def of(self, request: web.Request) -> Caller:
        """Return who asks. Raises ApiError: 401; 400, 403, 404 for the tenant it names; 503, Postgres being away."""
        digest, named = _presented(request), request.headers.get(TENANT_HEADER)
        if hmac.compare_digest(digest, self._bootstrap):
            return await self._in_tenant(named)
        known = self._known.get(digest)
        caller, until = known if known is not None else await self._stranger(digest)
        if until <= time.time():
            raise _invalid("This key has expired.")
        if named is not None and named not in (caller.tenant, caller.tenant_name):
            raise ApiError(
                403,
                f"This key does not act in the tenant that {TENANT_HEADER} names.",
                type="permission_error",
                code="tenant_not_allowed",
                param=TENANT_HEADER,
            )
        return caller

    def check_url(self, request: web.Request) -> None:
        """Raise ApiError 401 where a request's URL holds a key, or a parameter that is named like one."""
        url = request.raw_path
        values = request.path.split("/")
        if "?" in url:
            values += request.query.values()
        if (
            _KEY_SHAPE.search(unquote(url) if "%" in url else url)
            or ("?" in url and not _KEY_NAMES.isdisjoint(map(str.lower, request.query)))
            or any(self._is_admin_key(value) for value in values)
        ):
            raise ApiError(
                401,
                "A key does not belong into a URL, which is logged on its way: send `Authorization: Bearer <key>`, "
                "and rotate a key that was sent like this.",
                type="authentication_error",
                code="key_in_url",
            )

    def _is_admin_key(self, text: str) -> bool:
        given = text.encode(errors="surrogateescape")
        return len(given) == len(self._admin_key) and hmac.compare_digest(given, self._admin_key)

    async def _stranger(self, digest: bytes) -> tuple[Caller, float]:
        refused = self._refused.get(digest)
        if refused is not None and refused[1] > time.monotonic():
            raise _invalid(refused[0])
        changes = self._changes
        try:
            row = await self._lookups.add(digest)
        except Full:
            raise Unavailable("the front door has as many keys to look up as it may hold") from None
        why = _why_refused(row)
        fresh = changes == self._changes  # else what was read may be from before the change
        if row is None or why:
            if fresh:
                self._refused.put(digest, (why, time.monotonic() + REFUSED_SECONDS))
            raise _invalid(why)
        found = _caller(row), row.expires_at.timestamp() if row.expires_at else math.inf
        if fresh:
            self._known.put(digest, found)
        return found

    async def _look_up(self, digests: Sequence[bytes]) -> list[KeyRow | None]:
        found = await db.run(self._engine, lambda connection: api_keys.known(connection, digests), alone=True)
        return [found.get(digest) for digest in digests]

    async def _in_tenant(self, named: str | None) -> Caller:
        """Return the bootstrap key, in the tenant it names or, naming none, in the default one and everywhere."""
        if named is not None and (not named or not named.isprintable()):
            raise ApiError(400, f"{TENANT_HEADER} is not the name or the id of a tenant.", param=TENANT_HEADER)
        caller = self._tenants.get(named or "")
        if caller is None:
            changes, wanted = self._changes, named or DEFAULT
            row = await db.run(self._engine, lambda connection: tenants.find(connection, wanted), alone=True)
            if row is None:
                raise ApiError(404, f"No such tenant: {wanted[:100]!r}.", code="tenant_not_found", param=TENANT_HEADER)
            caller = Caller(row.id, row.name, everywhere=named is None, webhook_hosts=_hosts(row))
            if changes == self._changes:
                self._tenants.put(named or "", caller)
        return caller

    async def limits_of(self, tenant: str) -> TenantLimits:
        """Return what a tenant limits besides its keys. Raises ApiError 503, Postgres being away."""
        found = self._limits.get(tenant)
        if found is None:
            changes = self._changes
            try:
                found = await self._limited.add(tenant)
            except Full:
                raise Unavailable("the front door has as many limits to look up as it may hold") from None
            if changes == self._changes:
                self._limits.put(tenant, found)
        return found

    async def _look_up_limits(self, wanted: Sequence[str]) -> list[TenantLimits]:
        rows = await db.run(self._engine, lambda connection: rate_limits.of(connection, wanted), alone=True)
        found = by_tenant(wanted, rows)
        return [found[tenant] for tenant in wanted]

    def forget(self) -> None:
        """Look everything up again."""
        self._changes += 1
        for kept in (self._known, self._refused, self._tenants, self._limits):
            kept.clear()

    async def changed(self) -> None:
        """Have every front door look everything up again. Called after the commit of a change."""
        self.forget()
        with suppress(*RedisAway):  # they find out from the version
            await self._queue.announce(CHANGED, [])

    async def listen(self) -> None:
        """Forget whenever a change is announced, until cancelled."""
        while True:
            heed()
            try:
                async with self._queue.redis.pubsub() as channel:
                    await channel.subscribe(CHANGED)
                    self.forget()
                    while True:
                        heed()
                        if await channel.get_message(ignore_subscribe_messages=True, timeout=5):
                            self.forget()
            except RedisAway as error:
                log.warning("access.not_told", error=str(error))
                await asyncio.sleep(_AWAY_SECONDS)
            except Exception:
                log.exception("access.listening_crashed")
                await asyncio.sleep(_AWAY_SECONDS)

    async def watch(self) -> None:
        """Forget whenever the version in Postgres is another, until cancelled."""
        seen: int | None = None
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not (self._known or self._refused or self._tenants or self._limits):
                continue
            try:
                version = await db.run(self._engine, api_keys.version, alone=True)
            except Unavailable:  # nothing can be changed either
                continue
            except Exception:
                log.exception("access.watching_crashed")
                continue
            if version != seen:
                self.forget()
                seen = version


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _presented(request: web.Request) -> bytes:
    """Return the hash of the key that a request shows. Raises ApiError 401."""
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    key = (key if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")).strip()
    if not key:
        said = "Send your key as `Authorization: Bearer <key>`, or as `x-api-key: <key>`."
        raise ApiError(401, said, type="authentication_error", code="missing_api_key")
    return _digest(key.encode(errors="surrogateescape"))


def _why_refused(row: KeyRow | None) -> str:
    if row is None:
        return "This key is not valid."
    if row.revoked:
        return "This key was revoked."
    return "The tenant of this key was closed." if row.closed else ""


def _caller(row: KeyRow) -> Caller:
    return Caller(
        row.tenant_id,
        row.tenant_name,
        row.id,
        row.team_id,
        row.role,
        frozenset(row.scopes),
        None if row.models is None else frozenset(row.models),
        limits=AtDoor.of_key(row.limits),
        webhook_hosts=_hosts(row),
    )


def _hosts(row: KeyRow | TenantRow) -> tuple[str, ...] | None:
    return None if row.webhook_hosts is None else tuple(row.webhook_hosts)


def _invalid(message: str) -> ApiError:
    return ApiError(401, message, type="authentication_error", code="invalid_api_key")
