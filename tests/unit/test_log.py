"""What a process writes: each test runs one, since logging is set up once for a whole process."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.log import MASK, redact

BEGIN = "import logging, structlog\nfrom shared import log\n"


def run(code: str, *, level: str = "info", format: str = "json", bound: str = "") -> str:
    """Run `code` with logging set up; return what is on stderr. `logger` is a structlog logger."""
    program = f"{BEGIN}logger = structlog.get_logger('tests')\nlog.configure({level!r}, {format!r}{bound})\n{code}"
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == ""
    return ended.stderr


def events(code: str, **options: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(code, **options).splitlines()]


def test_an_event_and_its_fields() -> None:
    (event,) = events("logger.info('job.claimed', job='job_1', tries=2)", bound=", pool='openai'")
    when = event.pop("timestamp")
    assert event == {
        "event": "job.claimed", "level": "info", "logger": "tests", "pool": "openai", "job": "job_1", "tries": 2,
    }  # fmt: skip
    assert when.endswith("Z")
    assert abs(datetime.now(UTC) - datetime.fromisoformat(when)) < timedelta(seconds=30)


def test_the_libraries_logs_have_the_same_form() -> None:
    code = "logging.getLogger('some.library').info('took %d ms', 3)"
    (event,) = events(code, bound=", pool='openai'")
    assert event.pop("timestamp").endswith("Z")
    assert event == {"event": "took 3 ms", "level": "info", "logger": "some.library", "pool": "openai"}


def test_bound_fields_reach_threads() -> None:
    code = "import threading\nt = threading.Thread(target=lambda: logger.info('a.done'))\nt.start(); t.join()"
    (event,) = events(code, bound=", pool='openai'")
    assert event["pool"] == "openai"


@pytest.mark.parametrize("library", ["arq.worker", "arq.jobs", "alembic.runtime.migration", "aiohttp.access"])
def test_chatty_libraries_begin_at_warning(library: str) -> None:
    found = events(f"for say in ('info', 'warning'): getattr(logging.getLogger({library!r}), say)(say)")
    assert [event["event"] for event in found] == ["warning"]


@pytest.mark.parametrize(
    ("level", "expected"),
    [("debug", ["debug", "info", "warning", "error"]), ("warning", ["warning", "error"]), ("error", ["error"])],
)
def test_levels_are_the_same_for_all(level: str, expected: list[str]) -> None:
    code = "for say in ('debug', 'info', 'warning', 'error'): getattr({}, say)(say)"
    for which in ("logger", "logging.getLogger('l')", "logging.getLogger('arq')"):
        quiet = which.endswith("'arq')") and level == "debug"
        found = [event["event"] for event in events(code.format(which), level=level)]
        assert found == (["warning", "error"] if quiet else expected), which


def test_what_is_below_the_level_is_not_rendered() -> None:
    code = "class Loud:\n    def __repr__(self): raise SystemExit('rendered')\nlogger.debug('job.seen', body=Loud())"
    assert run(code) == ""


@pytest.mark.parametrize("format", ["json", "console"])
def test_an_exception_is_shown_without_its_variables_and_secrets(format: str) -> None:
    code = """
def crash():
    prompt = "the words of a " + "caller"
    raise ValueError("no answer from redis://:" + "hunter2@h/0 with sk-" + "proj-abcdef123456")
try:
    crash()
except ValueError:
    logger.exception("job.crashed")
    logging.getLogger("l").exception("crashed")
"""
    written = run(code, format=format)
    assert written.count("Traceback") == 2
    assert written.count(f"ValueError: no answer from redis://:{MASK}@h/0 with sk-{MASK}") == 2
    assert "the words of a caller" not in written
    assert "hunter2" not in written
    assert "abcdef" not in written


def test_the_console_has_a_line_for_an_event() -> None:
    written = run("logger.info('job.claimed', job='job_1', api_key='hunter2')", format="console")
    assert written.count("\n") == 1
    assert "job.claimed" in written
    assert "job=job_1" in written
    assert f"api_key={MASK}" in written
    assert "\x1b" not in written  # no colours where nobody sees them


@pytest.mark.parametrize(
    "name",
    [
        "authorization", "Authorization", "api_key", "apikey", "x-api-key", "key", "admin_key", "secret",
        "signing_secret", "password", "token", "access_token", "credentials", "cookie", "set-cookie",
    ],
)  # fmt: skip
def test_values_under_names_of_secrets_are_masked(name: str) -> None:
    event: dict[str, Any] = {name: "hunter2", "deep": [{name: "hunter2"}]}
    assert redact(None, "", event) == {name: MASK, "deep": [{name: MASK}]}


@pytest.mark.parametrize("name", ["tokens", "input_tokens", "keyboard", "monkey", "lane", "tokenizer", "key_name"])
def test_other_names_are_not(name: str) -> None:
    assert redact(None, "", {name: "seen"}) == {name: "seen"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("bad key sk-proj-abc_DEF-123456", "bad key sk-***"),
        ("'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'", "'whsec_***'"),
        ("Authorization: Bearer abc.def-ghi_jkl", "Authorization: Bearer ***"),
        ("sluice_" + "aB3_-" * 8 + "abc", "sluice_***"),
        ("postgresql://user:p%40ss@host:5432/db", "postgresql://user:***@host:5432/db"),
        ("postgresql://user:p@ss@host/db", "postgresql://user:***@host/db"),
        ("redis://:hunter2@host and http://a:b@c", "redis://:***@host and http://a:***@c"),
        ("risk-averse-people ask-me-anything", "risk-averse-people ask-me-anything"),
        ("http://host:8080/path and a@b", "http://host:8080/path and a@b"),
        ("database sluice_ab12cd34ef56", "database sluice_ab12cd34ef56"),
    ],
)
def test_what_is_shaped_like_a_secret_is_masked_in_text(text: str, shown: str) -> None:
    assert redact(None, "", {"event": text}) == {"event": shown}
    assert redact(None, "", {"event": "x", "deep": {"of": (text,)}}) == {"event": "x", "deep": {"of": [shown]}}


def test_secrets_inside_objects_are_masked() -> None:
    shown = redact(None, "", {"error": ValueError("sk-abcdef1234567890"), "raw": b"whsec_abcdef123456"})
    assert shown == {"error": f"ValueError('sk-{MASK}')", "raw": f"b'whsec_{MASK}'"}


def test_numbers_stay_numbers() -> None:
    event = {"tries": 3, "seconds": 0.25, "good": True, "cost": None}
    assert redact(None, "", dict(event)) == event
