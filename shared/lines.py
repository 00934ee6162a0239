"""The lines of a stream of bytes, as a batch's input file is read: one at a time, however long the stream or a line."""

from collections.abc import AsyncIterator

_BOM = b"\xef\xbb\xbf"
_MARKS = len(_BOM) + len(b"\r")


async def lines(pieces: AsyncIterator[bytes], most: int) -> AsyncIterator[tuple[int, bytes | None]]:
    """Yield (number from 1, bytes without the newline) of every line that is not blank, however the stream is cut.

    A newline is LF or CRLF; the last line may have none; a byte order mark at the start is left out. Of a line longer
    than `most` bytes only the number comes: it is never held.
    """
    number, begun = 0, bytearray()
    async for piece in pieces:
        start = 0
        while (end := piece.find(b"\n", start)) >= 0:
            line = piece[start:end]
            if begun:
                line = _joined(begun, line, most)
                begun.clear()
            start, number = end + 1, number + 1
            if number == 1:
                line = line.removeprefix(_BOM)
            line = line.removesuffix(b"\r")
            if len(line) > most:
                yield number, None
            elif line and not line.isspace():
                yield number, line
        begun += piece[start : start + _room(begun, most)]
    line = bytes(begun) if number else bytes(begun).removeprefix(_BOM)
    line = line.removesuffix(b"\r")
    if len(line) > most:
        yield number + 1, None
    elif line and not line.isspace():
        yield number + 1, line


def _room(begun: bytearray, most: int) -> int:
    """Return how much of a line is still worth holding: one byte more than decides that it is too long."""
    return most + _MARKS + 1 - len(begun)


def _joined(begun: bytearray, rest: bytes, most: int) -> bytes:
    return bytes(begun + rest[: _room(begun, most)])
