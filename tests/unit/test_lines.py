"""The lines of a stream: the same however it is cut, and never more of it held than a line may be long."""

import itertools
import tracemalloc
from collections.abc import AsyncIterator, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.lines import lines

BOM = b"\xef\xbb\xbf"


async def streamed(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def read(*pieces: bytes, most: int = 100) -> list[tuple[int, bytes | None]]:
    return [one async for one in lines(streamed(pieces), most)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (b"", []),
        (b"\n", []),
        (b"a\nb\n", [(1, b"a"), (2, b"b")]),
        (b"a\nb", [(1, b"a"), (2, b"b")]),
        (b"a\r\nb\r\n", [(1, b"a"), (2, b"b")]),
        (b"\n\n \t\n\r\na\n", [(5, b"a")]),
        (BOM + b"a\n" + BOM + b"b\n", [(1, b"a"), (2, BOM + b"b")]),
        (BOM, []),
        (BOM + b"a", [(1, b"a")]),
        (b"a\rb\n", [(1, b"a\rb")]),
        (b"a\r\r\n", [(1, b"a\r")]),
    ],
)
async def test_lines_are_numbered_as_an_editor_does(given: bytes, expected: list[tuple[int, bytes]]) -> None:
    assert await read(given) == expected
    assert await read(*(given[i : i + 1] for i in range(len(given)))) == expected


@pytest.mark.parametrize("before", [b"", BOM, b"a\n"])
@pytest.mark.parametrize("behind", [b"", b"\n", b"\r\n", b"\r\nz"])
async def test_a_line_may_be_exactly_so_long(before: bytes, behind: bytes) -> None:
    number = 1 + before.count(b"\n")
    rest = [(number + 1, b"z")] if behind.endswith(b"z") else []
    for pieces in ([b"x" * 10], [b"x"] * 10):
        assert (await read(before, *pieces, behind, most=10))[-1 - len(rest) :] == [(number, b"x" * 10), *rest]
    for pieces in ([b"x" * 11], [b"x"] * 11, [b"x" * 3, b"x" * 12, b"\r", b"x"]):
        assert (await read(before, *pieces, behind, most=10))[-1 - len(rest) :] == [(number, None), *rest]


def plainly(text: bytes, most: int) -> list[tuple[int, bytes | None]]:
    """Say what the lines are, with the whole text at hand."""
    found: list[tuple[int, bytes | None]] = []
    for number, line in enumerate(text.removeprefix(BOM).split(b"\n"), 1):
        line = line.removesuffix(b"\r")
        if len(line) > most:
            found.append((number, None))
        elif line.strip():
            found.append((number, line))
    return found


@given(
    tokens=st.lists(st.sampled_from([b"\n", b"\r", b" ", BOM, BOM[:1], BOM[1:], b"a", b"bcd", b"\xc3\xa4" * 4])),
    cuts=st.lists(st.integers(0, 60)),
    most=st.integers(1, 12),
)
async def test_any_cut_gives_the_same_lines(tokens: list[bytes], cuts: list[int], most: int) -> None:
    text = b"".join(tokens)
    ends = [0, *sorted(cuts), len(text)]
    pieces = [text[start:end] for start, end in itertools.pairwise(ends)]
    assert await read(*pieces, most=most) == plainly(b"".join(pieces), most)


async def test_an_endless_line_is_not_held() -> None:
    piece = b"x" * 65_536
    tracemalloc.start()
    try:
        found = [one async for one in lines(streamed(piece for _ in range(3000)), 100_000)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == [(1, None)]
    assert peak < 1_000_000
