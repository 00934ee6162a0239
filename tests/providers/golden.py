"""Golden files: what a vendor is sent and what it answers, each beside what we make of it, as JSON.

`golden/<kind>/{requests,answers,streams,errors,faults}.json` are lists of cases; what a case leaves out is in
`DEFAULTS`. A vendor that is a row of the table of those who speak OpenAI's dialect needs no files: it is read by the
functions of `openai_compatible`.
"""

import base64
import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest

from shared.providers import Adapter, Call, Completion, Deployment, HttpResponse, ProviderError, adapter, kinds
from shared.providers._vendors import VENDORS

ROOT = Path(__file__).parent / "golden"
CHAT = "/v1/chat/completions"
FILES = ("requests", "answers", "streams", "errors", "faults")
PLAIN: dict[str, Any] = {"model": "the-model", "messages": [{"role": "user", "content": "hi"}]}
DEFAULTS: dict[str, Any] = {
    "url": CHAT,
    "body": PLAIN,
    "key": "secret-key",
    "base_url": "https://upstream.example/base",
    "model": "the-model",
    "headers": {},
    "request_id": None,
    "retry_after": None,
}

_NEEDS = {"bedrock": "botocore", "litellm": "litellm"}

Outcome = tuple[list[dict[str, Any]], Completion | ProviderError]


def files() -> list[str]:
    """Return the kinds that are files, and so must have golden files of their own."""
    return [kind for kind in kinds() if kind not in VENDORS]


@cache
def cases(kind: str, name: str) -> list[dict[str, Any]]:
    """Return the cases of one golden file of a kind, with their defaults; none where there is no such file."""
    path = ROOT / kind / f"{name}.json"
    return [{**DEFAULTS, **case} for case in json.loads(path.read_text("utf-8"))] if path.exists() else []


def every(name: str) -> list[Any]:
    """Return the cases of all kinds as pytest's parameters `kind, case`."""
    return [pytest.param(kind, case, id=f"{kind}-{case['name']}") for kind in kinds() for case in cases(kind, name)]


def speaks(kind: str) -> Adapter:
    """Return a kind's adapter; skips the test where a package that it needs is not installed."""
    if kind in _NEEDS and importlib.util.find_spec(_NEEDS[kind]) is None:
        pytest.skip(f"the kind `{kind}` needs the package {_NEEDS[kind]}, which is not installed")
    return adapter(kind)


def call_of(case: dict[str, Any]) -> Call:
    """Return what a case asks for."""
    return Call(case["url"], case["body"], "job_1-1")


def plain(kind: str) -> dict[str, Any]:
    """Return a case that asks for nothing special: a kind's first request."""
    return next(iter(cases(kind, "requests")), DEFAULTS)


def deployment(kind: str, case: dict[str, Any]) -> Deployment:
    """Return where a case's call goes."""
    return Deployment(kind, kind, case["base_url"], case["model"])


def response(case: dict[str, Any], *, status: int = 200) -> HttpResponse:
    """Return a case's answer as it arrives; one that is a text is none of JSON."""
    answer = case["answer"]
    body = answer.encode() if isinstance(answer, str) else orjson.dumps(answer)
    return HttpResponse(case.get("status", status), case["headers"], body)


def raw(case: dict[str, Any]) -> bytes:
    """Return a case's stream as it arrives."""
    return base64.b64decode(case["stream_base64"]) if "stream_base64" in case else str(case["stream"]).encode()


def read(kind: str, case: dict[str, Any], pieces: list[bytes]) -> Outcome:
    """Return the chunks and the end of a case's stream that arrives in pieces."""
    reader = speaks(kind).stream(HttpResponse(200, case["headers"], b""), call_of(case))
    chunks = [chunk for piece in pieces for chunk in reader.feed(piece)]
    return chunks + reader.last(), reader.end()
