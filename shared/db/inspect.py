"""What a database server says of itself."""

from dataclasses import dataclass

from sqlalchemy import text

from shared.db.engine import Connection

_SERVER = text("""
SELECT current_setting('server_version_num')::integer / 10000 AS version,
    EXTRACT(epoch FROM clock_timestamp())::float AS now,
    current_setting('synchronous_commit') AS synchronous_commit, current_setting('fsync') AS fsync
""")


@dataclass(frozen=True, slots=True)
class ServerState:
    """A server's major version, its clock (Unix seconds), and the settings that durability hangs on."""

    version: int
    now: float
    synchronous_commit: str
    fsync: str


async def server(connection: Connection) -> ServerState:
    """Ask the server."""
    return ServerState(*(await connection.execute(_SERVER)).one())
