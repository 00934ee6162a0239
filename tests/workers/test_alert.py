"""Alerts reach real receivers: signed, once each, again where they fail, and no channel waits for another."""

import asyncio
import contextlib
import email
import email.policy
import ssl
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from sqlalchemy import text
from standardwebhooks import Webhook
from structlog.testing import capture_logs

from shared import signing
from shared.config_alerts import Channel
from shared.db import alerts
from shared.db import engine as db
from shared.db.alerts import AlertRow, NewAlert
from tests.gateway import until
from workers import channels, mail
from workers.alert import Alerter
from workers.channels import Channels

SECRET = signing.new_secret()
REFUSED = NewAlert("key.refused", "openai/main/ab12", "openai refuses its key main.", {"key": "main"})


@pytest.fixture
async def engine(database: str) -> AsyncIterator[db.Engine]:
    made = db.create(database, pool_size=4, name="test")
    yield made
    await made.dispose()


@dataclass
class Receiver:
    """A server that notes what it is sent; by its path it answers, hangs, fails, redirects or says far too much."""

    url: str = ""
    posts: list[tuple[str, Mapping[str, str], bytes]] = field(default_factory=list)
    broken: bool = True

    async def receive(self, request: web.Request) -> web.StreamResponse:
        self.posts.append((request.path, dict(request.headers), await request.read()))
        match request.path:
            case "/hang":
                await asyncio.Event().wait()
            case "/fail" if self.broken:
                return web.Response(status=500)
            case "/redirect":
                return web.Response(status=307, headers={"location": f"{self.url}/elsewhere"})
            case "/endless":
                response = web.StreamResponse()
                await response.prepare(request)
                with contextlib.suppress(ConnectionError):
                    while True:
                        await response.write(b"x" * 65_536)
        return web.Response(text="ok")

    def at(self, path: str) -> list[bytes]:
        return [body for found, _, body in self.posts if found == path]

    def channel(self, path: str, kind: str = "slack", **more: Any) -> Channel:
        return Channel.model_validate({"kind": kind, "url": self.url + path, **more})


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.add_routes([web.post("/{path:.*}", made.receive)])
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@asynccontextmanager
async def telling(engine: db.Engine, configured: Mapping[str, Channel]) -> AsyncIterator[None]:
    async with Channels(configured) as opened:
        running = asyncio.create_task(Alerter(engine, opened).run())
        try:
            yield
            assert not running.done()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def raise_(engine: db.Engine, *new: NewAlert) -> None:
    async with db.transaction(engine) as connection:
        await alerts.add(connection, new)


async def rows(engine: db.Engine) -> list[AlertRow]:
    async with db.transaction(engine) as connection:
        return list(await alerts.page(connection, None, after=None, limit=1_000))


async def change(engine: db.Engine, statement: str) -> None:
    async with db.transaction(engine) as connection:
        await connection.execute(text(statement))


async def settled(engine: db.Engine) -> list[AlertRow]:
    """Wait until nobody is left to be told."""
    return await until(lambda: rows(engine), lambda found: all(row.pending == [] for row in found), seconds=15)


async def test_a_webhook_is_signed_and_a_chat_is_told_in_words(engine: db.Engine, receiver: Receiver) -> None:
    configured = {
        "ops": receiver.channel("/ops", "webhook", secret=SECRET),
        "chat": receiver.channel("/chat"),
        "other": receiver.channel("/other", kinds=["circuit.opened"]),
    }
    odd = NewAlert("budget.exhausted", "b", "<!channel> it is *gone* & spent", tenant_id="default")
    with capture_logs() as logged:
        async with telling(engine, configured):
            await raise_(engine, REFUSED)
            await settled(engine)
            await raise_(engine, odd, REFUSED)
            await settled(engine)
    assert [len(receiver.at(path)) for path in ("/ops", "/chat", "/other")] == [2, 2, 0]
    for _, headers, body in (post for post in receiver.posts if post[0] == "/ops"):
        event = Webhook(SECRET).verify(body, headers)  # type: ignore[arg-type]
        assert (event["id"], event["object"]) == (headers["webhook-id"], "event")
    first = orjson.loads(receiver.at("/ops")[0])
    assert first["type"] == first["data"]["kind"] == "key.refused"
    assert first["data"] | {"id": "", "at": ""} == {
        "id": "", "object": "alert", "at": "", "kind": "key.refused", "subject": REFUSED.subject, "tenant_id": None,
        "message": REFUSED.message, "fields": {"key": "main"},
    }  # fmt: skip
    told, odd_told = (orjson.loads(body)["text"] for body in receiver.at("/chat"))
    assert told == "*key.refused* openai refuses its key main.\nsubject: openai/main/ab12"
    assert "&lt;!channel&gt; it is *gone* &amp; spent" in odd_told
    assert [one["kind"] for one in logged if one["event"] == "alert.raised"] == ["key.refused", "budget.exhausted"]
    assert {one["log_level"] for one in logged if one["event"] == "alert.raised"} == {"warning"}


async def test_without_channels_it_is_logged_once_and_kept(engine: db.Engine) -> None:
    with capture_logs() as logged:
        async with telling(engine, {}), telling(engine, {}):
            await raise_(engine, REFUSED)
            [row] = await settled(engine)
            await change(engine, "UPDATE alerts SET next_try_at = now()")
            await raise_(engine, NewAlert("circuit.opened", "later", "m"))
            await settled(engine)
    assert (row.tries, row.error) == (1, None)
    assert [one["subject"] for one in logged if one["event"] == "alert.raised"] == [REFUSED.subject, "later"]


async def test_a_channel_that_fails_or_hangs_delays_no_other_and_is_told_in_the_end(
    engine: db.Engine, receiver: Receiver
) -> None:
    configured = {name: receiver.channel(f"/{name}") for name in ("fail", "good", "hang")}
    many = [NewAlert("circuit.opened", str(number), "m") for number in range(30)]
    async with telling(engine, configured):
        await raise_(engine, *many)

        async def told() -> bool:
            return all("good" not in (row.pending or ["good"]) for row in await rows(engine))

        await until(told, seconds=5, what="the good channel")
    del configured["hang"]
    await change(engine, "UPDATE alerts SET pending = array_remove(pending, 'hang'), next_try_at = now()")
    with capture_logs() as logged:
        async with telling(engine, configured):

            async def put_off() -> bool:
                return all(row.error == "fail: answered 500" for row in await rows(engine))

            await until(put_off, seconds=10)
            receiver.broken = False
            await change(engine, "UPDATE alerts SET next_try_at = now()")
            found = await settled(engine)
    assert {one["event"] for one in logged} == {"alert.not_told"}
    assert {row.error for row in found} == {None}
    assert len(receiver.at("/good")) == 30  # who was told is not told again


@pytest.mark.parametrize("path", ["/redirect", "/endless", "/hang"])
async def test_what_a_receiver_may_not_do(
    engine: db.Engine, receiver: Receiver, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "POST_SECONDS", 0.3)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with telling(engine, {"x": receiver.channel(path)}):
        await raise_(engine, REFUSED)

        async def tried() -> AlertRow:
            return (await rows(engine))[0]

        row = await until(tried, lambda found: found.error or found.pending == [], seconds=5)
    expected = {"/redirect": "x: answered 307", "/endless": None, "/hang": "x: no answer within 0.3 s"}
    assert row.error == expected[path]
    assert receiver.at("/elsewhere") == []


async def test_what_is_said_of_a_failing_channel_holds_no_address(engine: db.Engine) -> None:
    hidden = Channel.model_validate({"kind": "slack", "url": "http://127.0.0.1:1/services/T0/hidden"})
    await raise_(engine, REFUSED)
    await change(engine, "UPDATE alerts SET pending = ARRAY['x', 'unknown']")
    with capture_logs() as logged:
        async with telling(engine, {"x": hidden}):

            async def tried() -> str:
                return str((await rows(engine))[0].error)

            said = await until(tried, lambda error: "unknown" in error, seconds=5)
    assert said == "x: ClientConnectorError; unknown: is not in the configuration"
    assert "hidden" not in str(logged)


async def test_after_a_day_it_is_given_up(engine: db.Engine, receiver: Receiver) -> None:
    await raise_(engine, REFUSED)
    await change(engine, "UPDATE alerts SET at = now() - interval '1 day', tries = 40, pending = ARRAY['fail']")
    with capture_logs() as logged:
        async with telling(engine, {"fail": receiver.channel("/fail")}):
            [row] = await settled(engine)
    assert row.error == "fail: answered 500"
    [said] = [one for one in logged if one["event"] == "alert.given_up"]
    assert (said["log_level"], said["tries"]) == ("error", 41)


# ------------------------------------------------------------------ mail


@dataclass
class Mailbox:
    """A mail server: takes STARTTLS where it has a certificate, and a login only behind it."""

    port: int = 0
    tls: ssl.SSLContext | None = None
    logins: list[str] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    mails: list[bytes] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    answer: str = "250 ok"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        secure = False
        writer.write(b"220 hello\r\n")
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while line := (await reader.readline()).decode():
                verb, _, rest = line.strip().partition(" ")
                self.commands.append(verb.upper())
                match verb.upper():
                    case "EHLO":
                        offered = "250 AUTH PLAIN" if secure or self.tls is None else "250 STARTTLS"
                        writer.write(f"250-hello\r\n{offered}\r\n".encode())
                    case "STARTTLS" if self.tls is not None:
                        writer.write(b"220 go\r\n")
                        await writer.start_tls(self.tls)
                        secure = True
                    case "AUTH" if secure:
                        self.logins.append(rest)
                        writer.write(b"235 welcome\r\n")
                    case "RCPT":
                        self.recipients.append(rest)
                        writer.write(b"250 ok\r\n")
                    case "DATA":
                        writer.write(b"354 go on\r\n")
                        self.mails.append(await reader.readuntil(b"\r\n.\r\n"))
                        writer.write(self.answer.encode() + b"\r\n")
                    case "QUIT":
                        writer.write(b"221 bye\r\n")
                        await writer.drain()
                        break
                    case "MAIL" | "RSET":
                        writer.write(b"250 ok\r\n")
                    case _:
                        writer.write(b"502 what\r\n")
        writer.close()

    def channel(self, security: str, **smtp: Any) -> Channel:
        server = {"host": "localhost", "port": self.port, "security": security, **smtp}
        to = ["ops@example.com", "cto@example.com"]
        return Channel.model_validate({"kind": "email", "sender": "sluice@example.com", "to": to, "smtp": server})


@pytest.fixture
async def mailbox() -> AsyncIterator[Mailbox]:
    made = Mailbox()
    server = await asyncio.start_server(made.serve, "localhost", 0)
    made.port = server.sockets[0].getsockname()[1]
    # The server may listen at several addresses, on a port each.
    for other in server.sockets[1:]:
        other.close()
    yield made
    server.close()


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A certificate for `localhost` that this process trusts."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = [
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
        "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


async def test_a_mail_says_what_happened_and_no_text_makes_a_header(engine: db.Engine, mailbox: Mailbox) -> None:
    evil = "one\x1b\r\nBcc: all@example.com\r\n\r\nGüten Tag\u2028"
    async with telling(engine, {"mail": mailbox.channel("none")}):
        await raise_(engine, NewAlert("key.refused", evil, evil + "\r\n.\r\nMAIL FROM:<x>", {"tokens": 5}, "t"))
        await settled(engine)
    [raw] = mailbox.mails
    got = email.message_from_bytes(raw.removesuffix(b"\r\n.\r\n"), policy=email.policy.default)
    assert got["Subject"] == "[sluice] key.refused: one Bcc: all@example.com Güten Tag"
    assert (got["From"], got["To"], got["Bcc"]) == ("sluice@example.com", "ops@example.com, cto@example.com", None)
    [row] = await rows(engine)
    assert got["Message-ID"] == f"<alert_{row.id.hex}@example.com>"
    body = got.get_content()  # type: ignore[attr-defined]
    assert "Güten Tag" in body
    assert "tokens: 5" in body
    assert len(mailbox.recipients) == 2
    assert mailbox.commands.count("MAIL") == 1


async def test_a_login_goes_through_starttls(engine: db.Engine, mailbox: Mailbox, certificate: ssl.SSLContext) -> None:
    mailbox.tls = certificate
    async with telling(engine, {"mail": mailbox.channel("starttls", user="u", password="p")}):
        await raise_(engine, REFUSED)
        await settled(engine)
    assert len(mailbox.logins) == len(mailbox.mails) == 1
    assert mailbox.commands.index("STARTTLS") < mailbox.commands.index("AUTH")


@pytest.mark.parametrize(
    ("security", "error"), [("starttls", "SMTPNotSupportedError"), ("tls", "SSLError"), ("none", None)]
)
async def test_a_server_without_tls_gets_nothing_where_tls_is_asked(
    engine: db.Engine, mailbox: Mailbox, security: str, error: str | None
) -> None:
    async with telling(engine, {"mail": mailbox.channel(security)}):
        await raise_(engine, REFUSED)

        async def tried() -> AlertRow:
            return (await rows(engine))[0]

        row = await until(tried, lambda found: found.error or found.pending == [], seconds=10)
    assert row.error == (error and f"mail: {error}")
    assert len(mailbox.mails) == (error is None)


async def test_a_certificate_nobody_trusts_gets_nothing(
    engine: db.Engine, mailbox: Mailbox, certificate: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailbox.tls = certificate
    monkeypatch.delenv("SSL_CERT_FILE")
    async with telling(engine, {"mail": mailbox.channel("starttls", user="u", password="p")}):
        await raise_(engine, REFUSED)

        async def tried() -> str | None:
            return (await rows(engine))[0].error

        assert await until(tried, seconds=10) == "mail: SSLCertVerificationError"
    assert mailbox.logins == []


async def test_a_mail_server_that_hangs_or_refuses_is_tried_again(
    engine: db.Engine, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail, "STEP_SECONDS", 0.3)

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(silence, "127.0.0.1", 0)
    smtp = {"host": "127.0.0.1", "port": silent.sockets[0].getsockname()[1], "security": "none"}
    hanging = mailbox.channel("none").model_dump() | {"smtp": smtp}
    mailbox.answer = "451 later"
    configured = {"hang": Channel.model_validate(hanging), "mail": mailbox.channel("none")}
    async with telling(engine, configured):
        await raise_(engine, REFUSED)

        async def tried() -> str | None:
            return (await rows(engine))[0].error

        said = await until(tried, seconds=10)
    silent.close()
    assert said == "hang: SMTPServerDisconnected; mail: SMTPDataError: 451"
