"""How a command talks to the gateway: a session for one command, one thing's path, a list over its pages."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import quote

import typer

if TYPE_CHECKING:
    from shared.cli.client import Client

T = TypeVar("T")

LARGEST_PAGE = 100

Url = Annotated[
    str | None, typer.Option(help="the gateway's address (default: SLUICE_URL, or port SLUICE_PORT of this machine)")
]

Tenant = Annotated[str | None, typer.Option(help="name or id of a tenant; with the bootstrap key")]


def with_client(url: str | None, act: "Callable[[Client], Awaitable[T]]", *, tenant: str | None = None) -> T:
    """Run one command's calls in a session of their own, with the bootstrap key as `tenant`. Raises CliError."""
    from shared.cli.client import Client, find_address
    from shared.cli.output import note

    async def session() -> T:
        async with Client(find_address(os.environ, url=url), tenant=tenant, on_wait=note) as client:
            return await act(client)

    return asyncio.run(session())


def path_of(path: str, id_: str, *more: str) -> str:
    """Return the path of one thing, whatever characters its id has."""
    return "/".join((path, quote(id_, safe=""), *more))


def listed(
    path: str, query: dict[str, str | int | None], *, limit: int, url: str | None, tenant: str | None = None
) -> dict[str, Any]:
    """Return up to `limit` entries of a list, over as many pages as that takes. Raises CliError."""

    async def act(client: "Client") -> dict[str, Any]:
        found: list[dict[str, Any]] = []
        while True:
            after = found[-1]["id"] if found else None
            page = await client.get(path, **query, after=after, limit=min(limit - len(found), LARGEST_PAGE))
            found += page["data"]
            if not page["data"] or not page["has_more"] or len(found) >= limit:
                return {"object": "list", "data": found, "has_more": page["has_more"]}

    return with_client(url, act, tenant=tenant)
