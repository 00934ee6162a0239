"""Mail: one message to a server, with a time-out on every step. It blocks, so it is for a thread of its own."""

import smtplib
import socket
import ssl
from collections.abc import Sequence
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime

from shared.config_alerts import PORTS, Smtp

STEP_SECONDS = 10.0
LONGEST_SUBJECT = 150


def message(*, sender: str, to: Sequence[str], subject: str, text: str, message_id: str, at: datetime) -> EmailMessage:
    """Return a message. A subject may be any text: what is no printable character in it is a space."""
    made = EmailMessage()
    plain = " ".join("".join(one if one.isprintable() else " " for one in subject).split())
    made["Subject"] = plain[:LONGEST_SUBJECT]
    made["From"] = Address(addr_spec=sender)
    made["To"] = [Address(addr_spec=one) for one in to]
    made["Date"] = format_datetime(at)
    made["Message-ID"] = f"<{message_id}@{sender.rpartition('@')[2]}>"  # the same on every try
    made["Auto-Submitted"] = "auto-generated"
    made.set_content(text, cte="quoted-printable")
    return made


def send(server: Smtp, mail: EmailMessage) -> None:
    """Send a message. Raises OSError or SMTPException; a server that does not keep to its `security` gets nothing."""
    port = server.port or PORTS[server.security]
    named = socket.gethostname()  # smtplib would look up its full name, for as long as that takes
    if server.security == "tls":
        context = ssl.create_default_context()
        client: smtplib.SMTP = smtplib.SMTP_SSL(
            server.host, port, local_hostname=named, timeout=STEP_SECONDS, context=context
        )
    else:
        client = smtplib.SMTP(server.host, port, local_hostname=named, timeout=STEP_SECONDS)
    with client:
        if server.security == "starttls":
            client.starttls(context=ssl.create_default_context())
        if server.user is not None and server.password is not None:
            client.login(server.user, server.password.get_secret_value())
        refused = client.send_message(mail)
    if refused:
        raise smtplib.SMTPRecipientsRefused(refused)
