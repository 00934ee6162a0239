"""`alerts` in the configuration: what each kind of channel needs, and that no secret is shown."""

import re
from pathlib import Path

import pytest

from shared import config, signing
from shared.config_alerts import KINDS, Channel, Smtp
from shared.errors import ConfigError

SECRET = "whsec_" + "A" * 43 + "="
MAIL = "kind: email, sender: sluice@example.com, to: [ops@example.com]"


def load(tmp_path: Path, channels: str, **env: str) -> config.Config:
    path = tmp_path / "sluice.yaml"
    path.write_text(f"providers: {{o: {{kind: simulated}}}}\nalerts:\n  channels:\n    {channels}\n")
    return config.load(path, env)


def test_each_kind_of_channel_is_read_and_shows_no_secret(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        f"""ops: {{kind: webhook, url: "https://ops.example/hook?room=1", secret: "${{HOOK}}", kinds: [key.refused]}}
    chat: {{kind: slack, url: "${{CHAT}}"}}
    mail: {{{MAIL}, smtp: {{host: mail.example, user: u, password: "${{MAIL}}"}}}}""",
        HOOK=SECRET,
        CHAT="https://hooks.example/services/T0/hidden",
        MAIL="hunter2",
    )
    ops, chat, mail = found.alerts.channels.values()
    assert ops.kinds == ("key.refused",)
    assert chat.kinds is None
    assert mail.smtp is not None
    assert (mail.smtp.security, mail.smtp.port) == ("starttls", None)
    for hidden in (SECRET, "hidden", "hunter2"):
        assert hidden not in repr(found)
    assert load(tmp_path, "{}").alerts.channels == {}


def test_the_channels_of_the_example_are_good_and_show_every_setting(tmp_path: Path) -> None:
    _, _, text = (Path(__file__).parents[2] / "sluice.example.yaml").read_text().partition("\nalerts:")
    [text] = re.findall(r"(?:^    # .*\n)+", text, re.MULTILINE)
    env = {"ALERTS_SECRET": SECRET, "ALERTS_CHAT_URL": "https://h/", "SMTP_PASSWORD": "p"}
    found = load(tmp_path, re.sub(r"^    # ", "    ", text, flags=re.MULTILINE).strip(), **env)
    assert list(found.alerts.channels) == ["ops", "chat", "mail"]
    names = {name for shape in (Channel, Smtp) for name in shape.model_fields}
    assert {name for name in names if f"{name}:" not in text} == set()


def test_addresses_may_be_on_the_operators_own_network(tmp_path: Path) -> None:
    found = load(tmp_path, 'chat: {kind: slack, url: "http://10.0.0.1:8065/hooks/x"}').alerts.channels["chat"]
    assert found.url is not None


def test_a_new_signing_secret_is_one(tmp_path: Path) -> None:
    load(tmp_path, f'ops: {{kind: webhook, url: "https://h/", secret: {signing.new_secret()}}}')


@pytest.mark.parametrize(
    ("channel", "where", "what"),
    [
        ("{kind: webhook, url: 'https://h/'}", "x.secret", "is required"),
        (f"{{kind: webhook, secret: {SECRET}}}", "x.url", "is required"),
        (f"{{kind: webhook, secret: {SECRET}, url: ''}}", "x.url", "must be an http or https URL"),
        (f"{{kind: webhook, secret: {SECRET}, url: 'https://u:p@h/'}}", "x.url", "must not hold a user name"),
        ("{kind: webhook, url: 'https://h/', secret: whsec_short}", "x.secret", "must be whsec_ and the base64"),
        ("{kind: webhook, url: 'https://h/', secret: " + SECRET[6:] + "}", "x.secret", "must be whsec_ and the base64"),
        ("{kind: slack}", "x.url", "is required"),
        (f"{{kind: slack, url: 'https://h/', secret: {SECRET}}}", "x.secret", "is not a setting of the kind slack"),
        (f"{{{MAIL}}}", "x.smtp", "is required"),
        (f"{{{MAIL}, smtp: {{host: h}}, url: 'https://h/'}}", "x.url", "is not a setting of the kind email"),
        (f"{{{MAIL}, smtp: {{host: h, port: 0}}}}", "x.smtp.port", "must be greater than 0"),
        (f"{{{MAIL}, smtp: {{host: 'a b'}}}}", "x.smtp.host", "must be"),
        (f"{{{MAIL}, smtp: {{host: h, user: u}}}}", "x.smtp.password", "is required where there is a user"),
        (
            f"{{{MAIL}, smtp: {{host: h, security: none, user: u, password: p}}}}",
            "x.smtp.password",
            "must not be sent without TLS",
        ),
        ("{kind: email, sender: s@e.x, to: [], smtp: {host: h}}", "x.to", "is required"),
        ("{kind: email, sender: s@e.x, to: ['a@b.c, d@e.f'], smtp: {host: h}}", "x.to[0]", "must be an address"),
        ('{kind: email, sender: "s@e.x\\nBcc: a@b.c", to: [a@b.c], smtp: {host: h}}', "x.sender", "must be an address"),
        ("{kind: pigeon}", "x.kind", "must be 'webhook', 'slack' or 'email'"),
        ("{kind: slack, url: 'https://h/', kinds: []}", "x.kinds", "must not be empty"),
        ("{kind: slack, url: 'https://h/', kinds: [key.refuse]}", "x.kinds[0]", "is not a kind of alert; did you mean"),
        ("{kind: slack, url: 'https://h/', kind_: 1}", "x.kind_", "is not a key here; did you mean `kind`"),
    ],
)
def test_a_fault_names_its_line(tmp_path: Path, channel: str, where: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f"x: {channel}")
    [found] = str(caught.value).splitlines()
    assert found.partition("sluice.yaml:")[2].startswith(f"4: alerts.channels.{where}: {what}")


def test_no_value_is_in_a_fault(tmp_path: Path) -> None:
    hidden = "hunter2hunter2"
    with pytest.raises(ConfigError) as caught:
        load(
            tmp_path,
            "x: {kind: webhook, url: '${S}', secret: '${S}', kinds: ['${S}']}\n"
            "    y: {kind: email, sender: '${S}', to: ['${S}', '${S} x'], smtp: {host: '${S} x', security: '${S}'}}",
            S=hidden,
        )
    assert hidden not in str(caught.value)


def test_the_document_lists_every_kind() -> None:
    page = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text()
    assert sorted(re.findall(r"^\| `([a-z_.]+)` \|", page, re.MULTILINE)) == sorted(KINDS)


def test_every_kind_that_is_raised_is_one() -> None:
    root = Path(__file__).parents[2]
    sources = [
        path.read_text() for name in ("shared", "workers", "gateway_api") for path in (root / name).rglob("*.py")
    ]
    raised = {kind for text in sources for kind in re.findall(r'NewAlert\(\s*"([a-z_.]+)"', text)}
    assert raised >= {"circuit.opened", "key.refused", "model.unpriced"}
    assert raised <= set(KINDS)
