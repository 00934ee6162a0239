"""Connections to Postgres: one bounded pool a process, time-outs on everything, one word for "it is away"."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import TypeVar

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from shared.errors import Unavailable

R = TypeVar("R")

Connection = AsyncConnection
Engine = AsyncEngine

CONNECT_SECONDS = 5
STATEMENT_SECONDS = 30
TRIES = 3
_BY_KEY = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}

# Connection lost, shutting down, cancelled by a limit, out of a resource, I/O error, lock not available, read-only.
_AWAY = ("08", "57", "53", "58", "55P03", "55000", "25006", "XX")
_REFUSED = ("22", "23", "54")  # a value that cannot be stored, a constraint, a limit of Postgres
_COLLISION = ("40001", "40P01")  # serialization failure, deadlock


def create(url: str, *, pool_size: int, name: str, by_key: bool = False) -> Engine:
    """Return an engine for a `postgresql://` URL; `name` shows in `pg_stat_activity`. Connects lazily.

    `by_key` is for processes that only ever look rows up by key, many at a time: each statement is planned once, for
    index look-ups. Planned anew for its arguments a claim costs twice as much; planned once while the tables were still
    empty it would go on reading them whole.
    """
    return create_async_engine(
        url.replace("postgresql://", "postgresql+asyncpg://", 1).replace("postgres://", "postgresql+asyncpg://", 1),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=CONNECT_SECONDS,
        pool_recycle=1800,
        hide_parameters=True,  # they hold prompts, and errors are logged
        connect_args={
            "timeout": CONNECT_SECONDS,
            "command_timeout": STATEMENT_SECONDS + 5,
            "server_settings": {
                "application_name": name,
                "statement_timeout": f"{STATEMENT_SECONDS}s",
                "idle_in_transaction_session_timeout": f"{STATEMENT_SECONDS}s",
                "timezone": "UTC",
                "jit": "off",
                **(_BY_KEY if by_key else {}),
            },
        },
    )


def is_away(error: BaseException) -> bool:
    """Tell whether an error means that Postgres cannot be reached or used now, so that trying later makes sense."""
    if isinstance(error, DBAPIError):
        state = getattr(error.orig, "sqlstate", None) or ""
        return error.connection_invalidated or state.startswith(_AWAY) or is_away(error.__cause__ or ValueError())
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "").startswith(_AWAY)
    return isinstance(error, PoolTimeout | OSError | TimeoutError | asyncpg.InterfaceError)


def is_refused(error: BaseException) -> bool:
    """Tell whether Postgres will never take what it was given, so that only something else can be written."""
    return isinstance(error, DBAPIError) and (getattr(error.orig, "sqlstate", None) or "").startswith(_REFUSED)


def is_collision(error: BaseException) -> bool:
    """Tell whether a transaction lost against a concurrent one and may simply be run again."""
    return isinstance(error, DBAPIError) and (getattr(error.orig, "sqlstate", None) or "") in _COLLISION


async def ping(engine: Engine) -> None:
    """Raise Unavailable unless Postgres answers."""
    async with transaction(engine) as connection:
        await connection.execute(text("SELECT 1"))


@asynccontextmanager
async def transaction(engine: Engine) -> AsyncIterator[Connection]:
    """Open a transaction, committed at the end of the block. Raises Unavailable where Postgres is away."""
    try:
        async with engine.begin() as connection:
            yield connection
    except Exception as error:
        if is_away(error):
            raise Unavailable("the database is not available") from error
        raise


@lru_cache(maxsize=16)
def _autocommit(engine: Engine) -> Engine:
    """Return the same engine, whose connections begin no transactions."""
    return engine.execution_options(isolation_level="AUTOCOMMIT")


async def run(engine: Engine, work: Callable[[Connection], Awaitable[R]], *, alone: bool = False) -> R:
    """Run `work` in a transaction, again when it collides with another or its pooled connection had died.

    `work` must be safe to repeat: with a lost connection nobody knows whether the commit went through.
    `alone` says that it is one statement, a transaction by itself: that saves two round trips.
    Raises Unavailable where Postgres is away.
    """
    for left in range(TRIES - 1, -1, -1):
        try:
            if alone:
                async with _autocommit(engine).connect() as connection:
                    return await work(connection)
            async with engine.begin() as connection:
                return await work(connection)
        except Exception as error:
            dead = isinstance(error, DBAPIError) and error.connection_invalidated
            if left and (dead or is_collision(error)):
                continue
            if is_away(error) or is_collision(error):
                raise Unavailable("the database is not available") from error
            raise
    raise AssertionError("unreachable")
