"""What the storages share: pieces as they come made into parts as they are kept, and the word for what is not there."""

from collections.abc import AsyncIterator

from shared.errors import ApiError

MIB = 2**20


class Missing(ApiError):
    """A file is there, its content is not."""

    def __init__(self) -> None:
        super().__init__(500, "The content of this file is missing.", type="server_error", code="file_content_missing")


async def parts(pieces: AsyncIterator[bytes], *, least: int) -> AsyncIterator[bytes]:
    """Yield the pieces joined to parts of at least so many bytes, the last, which may be empty, of fewer."""
    held: list[bytes] = []
    size = 0
    async for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= least:
            yield b"".join(held)
            held.clear()
            size = 0
    yield b"".join(held)
