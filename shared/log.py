"""Logs: structured events with past-tense names (`job.claimed`) on stderr; the libraries' logs in the same form.

Prompts and completions are never logged; what looks like a secret is masked on the way out, should one slip in.
"""

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

MASK = "***"
_SECRET_NAME = re.compile(
    r"(?:^|[_.-])(?:authorization|api[_-]?key|key|secret|password|passwd|token|credentials?|cookie)$", re.IGNORECASE
)
_SECRET_TEXT = re.compile(
    r"(?<![A-Za-z0-9])(sk-|whsec_|Bearer )[A-Za-z0-9+/=_.\-]{8,}|(?<![A-Za-z0-9])(sluice_)[A-Za-z0-9_\-]{32,}"
)
_URL_PASSWORD = re.compile(r"(://[^/\s:@]*):[^/\s]+@")
_CHATTY = ("arq", "alembic", "botocore", "sqlalchemy.engine", "aiohttp.access", "asyncio")


def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Mask values under names of secrets, and what is shaped like a secret in any text, however deep."""
    return _masked(event)  # type: ignore[no-any-return]


def _masked(value: Any) -> Any:
    match value:
        case str():
            text = _SECRET_TEXT.sub(lambda found: (found[1] or found[2]) + MASK, value)
            return _URL_PASSWORD.sub(rf"\1:{MASK}@", text) if "://" in text else text
        case None | bool() | int() | float():
            return value
        case Mapping():
            return {name: MASK if _SECRET_NAME.search(str(name)) else _masked(one) for name, one in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_masked(one) for one in value]
        case _:
            return _masked(repr(value))


def configure(level: str, format: Literal["json", "console"], **bound: Any) -> None:
    """Set up logging for this process. `bound` fields are on every event, the libraries' included."""

    def add_bound(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {**bound, **event}

    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        add_bound,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Processor = structlog.processors.JSONRenderer()
    if format == "console":
        plain = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,  # before redact: what an exception says may hold a secret
            redact,
            renderer,
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(number)
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(max(number, logging.WARNING))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(number),
        cache_logger_on_first_use=True,
    )
