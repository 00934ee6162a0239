"""Receivers that do what they like: each costs its own time-out and no more, and what it says is told in words."""

import asyncio
import contextlib
import os
import resource
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from workers import destination
from workers.post import EXCERPT_BYTES, MOST_ANSWER_BYTES, Answer, post

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"
ENDLESS = b"HTTP/1.1 200 OK\r\n\r\n"


@contextlib.asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[str]:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()


async def request(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    await reader.readexactly(size)


def saying(answer: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(answer)
        await writer.drain()
        await reader.read()

    return serve


async def sent(url: str, *, times: int = 1, timeout: float = 5.0) -> Answer:
    async with destination.session([ip_network("127.0.0.0/8")], limit=5) as client:
        for _ in range(times):
            answer = await post(client, url, b'{"a":1}', {}, timeout=timeout)
        return answer


async def test_what_it_said_is_kept_as_text_that_can_be_shown() -> None:
    body = b"no \x1b[31mway\x00 \xff" + b"x" * 2_000
    answer = b"HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    async with serving(saying(answer)) as url:
        found = await sent(url)
    assert (found.status, found.good, found.asked, found.error) == (503, False, 7.0, None)
    assert found.excerpt is not None
    assert found.excerpt.startswith("no \ufffd[31mway\ufffd \ufffdxxx")
    assert len(found.excerpt) == EXCERPT_BYTES


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 O", b"HTTP/1.1 200 OK\r\nx: "])
async def test_one_that_hangs_costs_its_time_out(answer: bytes) -> None:
    begun = time.monotonic()
    async with serving(saying(answer)) as url:
        found = await sent(url, timeout=0.2)
    assert (found.status, found.error) == (None, "no answer within 0.2 s")
    assert 0.2 <= time.monotonic() - begun < 2


async def test_one_that_goes_on_saying_that_it_goes_on_is_given_up() -> None:
    async with serving(saying(b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000 + HEAD % 0)) as url:
        found = await sent(url)
    assert found.status is None
    assert "informational" in str(found.error)
    async with serving(saying(b"HTTP/1.1 102 Processing\r\n\r\n" * 3 + HEAD % 0)) as url:
        assert (await sent(url)).status == 200


async def test_one_that_drips_its_headers_is_not_waited_for() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        for byte in ENDLESS * 100:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)

    async with serving(serve) as url:
        assert (await sent(url, timeout=0.3)).status is None


async def test_a_status_counts_however_slow_or_long_the_body_is() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(HEAD % 60)
        for _ in range(60):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(1)

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(ENDLESS)
        while True:
            writer.write(b"y" * 65_536)
            flooded.append(65_536)
            await writer.drain()

    flooded: list[int] = []
    for serve, said in ((drip, "x"), (flood, "y" * EXCERPT_BYTES)):
        begun = time.monotonic()
        async with serving(serve) as url:
            found = await sent(url)
        assert found.good
        assert (found.excerpt or "").startswith(said)
        assert time.monotonic() - begun < 3
    assert sum(flooded) < 100 * MOST_ANSWER_BYTES


async def test_a_connection_is_kept_and_one_that_was_closed_meanwhile_is_no_failure() -> None:
    connections = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        for _ in range(2):
            await request(reader)
            writer.write(HEAD % 0)
        if len(connections) == 1:
            await request(reader)  # the third on it gets no answer

    async with serving(serve) as url:
        assert (await sent(url, times=2)).good
        assert len(connections) == 1
        connections.clear()
        assert (await sent(url, times=3)).good
        assert len(connections) == 2


async def no_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 this is not TLS\r\n\r\n")


@pytest.mark.parametrize(
    ("serve", "scheme", "words"),
    [
        (saying(b"nonsense\r\n\r\n"), "http", "Bad"),
        (no_tls, "https", "SSL"),
    ],
)
async def test_what_is_broken_is_an_error_in_words(serve: Serve, scheme: str, words: str) -> None:
    async with serving(serve) as url:
        found = await sent(url.replace("http", scheme), timeout=5)
    assert found.status is None
    assert found.error is not None
    assert words in found.error
    assert found.error.isprintable()


async def test_nobody_there_is_an_error_in_words() -> None:
    async with serving(saying(b"")) as url:
        pass
    found = await sent(url)
    assert found.error is not None
    assert "Cannot connect" in found.error
    assert not found.ours


async def test_a_want_of_file_descriptors_is_ours() -> None:
    async with serving(saying(HEAD % 0)) as url, destination.session([ip_network("127.0.0.0/8")], limit=5) as client:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        os.close(free := os.dup(0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
        try:
            found = await post(client, url, b"{}", {}, timeout=5)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert found.ours
        assert (await post(client, url, b"{}", {}, timeout=5)).good


async def test_a_redirect_is_an_answer_and_cookies_are_forgotten() -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            await reader.readexactly(7)
            moved = b"HTTP/1.1 307 Moved\r\nlocation: /else\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n"
            writer.write(moved)

    async with serving(serve) as url:
        found = await sent(url, times=2)
    assert (found.status, found.good) == (307, False)
    assert all(head.startswith(b"POST / ") and b"cookie" not in head.lower() for head in heads)


async def test_a_certificate_that_nobody_vouches_for_gets_no_event(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "both.pem").write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    reached = []

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        reached.append(await reader.read(1))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    found = await sent(f"https://localhost:{port}/")
    server.close()
    assert found.status is None
    assert "certificate" in str(found.error).lower()
    assert reached == []
