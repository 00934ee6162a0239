"""What an embedded server looks like to those who use it."""

from dataclasses import dataclass, field
from pathlib import Path

from shared.embedded.children import Child


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where clients connect, its process, its own directory.

    `await server.child.kill()` and `await server.child.start()` are a crash and its recovery; the URL stays.
    """

    url: str = field(repr=False)
    child: Child
    directory: Path
