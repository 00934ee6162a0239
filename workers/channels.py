"""How each kind of channel is told of an alert: a signed POST, a line of chat, a mail. When is `alert`'s."""

import asyncio
import smtplib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self, assert_never

import aiohttp
import orjson
import structlog

from shared import ids, public, retry, signing
from shared.config_alerts import Channel
from shared.db.alerts import AlertRow
from workers import mail

log = structlog.get_logger(__name__)

POST_SECONDS = 10.0
MAIL_SECONDS = 30.0
_POSTS_AT_ONCE = 20
_MAILS_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Untold:
    """Why a channel was not told, without its address or secret, and the seconds it asks to wait."""

    error: str
    wait: float = 0.0


class Channels:
    """The channels of one process: `async with Channels(configured) as channels`."""

    def __init__(self, configured: Mapping[str, Channel]) -> None:
        self.configured = configured
        # Each channel has threads or connections of its own, so that one which hangs holds up no other.
        self._threads = {
            name: ThreadPoolExecutor(_MAILS_AT_ONCE, thread_name_prefix=f"mail-{name}")
            for name, channel in configured.items()
            if channel.kind == "email"
        }

    async def __aenter__(self) -> Self:
        self._clients = {
            name: aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_POSTS_AT_ONCE, force_close=True),
                timeout=aiohttp.ClientTimeout(total=POST_SECONDS),
                headers={"user-agent": "sluice-alerts", "content-type": "application/json"},
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,  # no proxy from the environment
            )
            for name in self.configured.keys() - self._threads.keys()
        }
        return self

    async def __aexit__(self, *_: object) -> None:
        for pool in self._threads.values():
            pool.shutdown(wait=False, cancel_futures=True)
        for client in self._clients.values():
            await client.close()

    async def tell(self, name: str, alert: AlertRow) -> Untold | None:
        """Tell a channel of an alert; return why that did not go well. Raises nothing but for cancellation."""
        channel = self.configured.get(name)
        if channel is None:  # another process may know it still, or already
            return Untold("is not in the configuration")
        try:
            match channel.kind:
                case "webhook":
                    assert channel.url is not None
                    assert channel.secret is not None
                    body = event(alert)
                    return await self._post(
                        name,
                        channel.url.get_secret_value(),
                        body,
                        signing.headers(
                            channel.secret.get_secret_value(),
                            event_id=ids.show("alert", alert.id),
                            timestamp=datetime.now(UTC),
                            body=body,
                        ),
                    )
                case "slack":
                    assert channel.url is not None
                    return await self._post(
                        name, channel.url.get_secret_value(), orjson.dumps({"text": chat(alert)}), {}
                    )
                case "email":
                    return await self._mail(name, channel, alert)
                case _:
                    assert_never(channel.kind)
        except Exception:
            log.exception("channel.crashed", channel=name)
            return Untold("internal error")

    async def _post(self, name: str, url: str, body: bytes, headers: Mapping[str, str]) -> Untold | None:
        try:
            # The answer's body is not read.
            async with self._clients[name].post(url, data=body, headers=headers, allow_redirects=False) as response:
                if 200 <= response.status < 300:
                    return None
                asked = retry.retry_after({name.lower(): value for name, value in response.headers.items()})
                return Untold(f"answered {response.status}", asked or 0.0)
        except TimeoutError:
            return Untold(f"no answer within {POST_SECONDS:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:  # what they say may hold the URL, itself a secret
            return Untold(type(error).__name__)

    async def _mail(self, name: str, channel: Channel, alert: AlertRow) -> Untold | None:
        assert channel.smtp is not None
        assert channel.sender is not None
        made = mail.message(
            sender=channel.sender,
            to=channel.to,
            subject=f"[sluice] {alert.kind}: {alert.subject}",
            text=letter(alert),
            message_id=ids.show("alert", alert.id),
            at=alert.at,
        )
        sending = asyncio.get_running_loop().run_in_executor(self._threads[name], mail.send, channel.smtp, made)
        try:
            async with asyncio.timeout(MAIL_SECONDS):
                await sending
        except TimeoutError:
            return Untold(f"not sent within {MAIL_SECONDS:g} s")
        except smtplib.SMTPResponseException as error:
            return Untold(f"{type(error).__name__}: {error.smtp_code}")
        except (smtplib.SMTPException, OSError) as error:
            return Untold(type(error).__name__)
        return None


def event(alert: AlertRow) -> bytes:
    """Return the body of a webhook: `{"id", "object": "event", "type", "created_at", "data"}`, as a job's event has."""
    return orjson.dumps(
        {
            "id": ids.show("alert", alert.id),
            "object": "event",
            "type": alert.kind,
            "created_at": int(alert.at.timestamp()),
            "data": public.alert(alert),
        }
    )


def chat(alert: AlertRow) -> str:
    """Return a line of chat. What was said elsewhere is no markup: it can mention nobody and link nowhere."""
    plain = [str(one).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for one in _said(alert)]
    return f"*{plain[0]}* {plain[1]}\n{plain[2]}"


def letter(alert: AlertRow) -> str:
    """Return the text of a mail."""
    kind, text, of = _said(alert)
    fields: Mapping[str, Any] = alert.fields
    listed = "\n".join(f"{name}: {value}" for name, value in fields.items())
    return (
        f"{text}\n\nalert: {ids.show('alert', alert.id)}\nat: {public.moment(alert.at)}\nkind: {kind}\n{of}\n{listed}\n"
    )


def _said(alert: AlertRow) -> tuple[str, str, str]:
    tenant = "" if alert.tenant_id is None else f", tenant {alert.tenant_id}"
    return alert.kind, alert.message, f"subject: {alert.subject}{tenant}"
