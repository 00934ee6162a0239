"""What an adapter costs a call: building the request and reading the answer, with a prompt of 1 kB."""

import statistics
import time
from pathlib import Path

import orjson

from bench.figures import Figure
from shared import providers
from shared.errors import ConfigError
from shared.providers import Call, Completion, Deployment, HttpResponse

GOLDEN = Path(__file__).parent.parent / "tests" / "providers" / "golden"
ROUNDS = 5
CALLS = 1_000
MOST_MICROSECONDS = 100


async def run(*_: object) -> list[Figure]:
    figures = []
    for directory in sorted(GOLDEN.iterdir()):
        if not (directory / "answers.json").exists():
            continue
        took = _microseconds(directory.name)
        if took is not None:
            text = f"{directory.name}: {took:.0f} µs a call (≤ {MOST_MICROSECONDS})"
            figures.append(Figure(text, took <= MOST_MICROSECONDS))
    return figures


def _microseconds(kind: str) -> float | None:
    """Return the median time of a call, None for a kind that takes no call without more configuration."""
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "Some words of a prompt. " * 43}],
        "temperature": 0.5,
    }
    call = Call("/v1/chat/completions", body, "job_019ab3c0000070008000000000000000-1")
    cases = orjson.loads((GOLDEN / kind / "answers.json").read_bytes())
    answer = next(case["answer"] for case in cases if case.get("url", call.url) == call.url and "completion" in case)
    response = HttpResponse(200, {"content-type": "application/json"}, orjson.dumps(answer))
    try:
        speaks = providers.adapter(kind)
        where = Deployment("p", kind, speaks.DEFAULT_BASE_URL or "https://upstream.example", "m")
        if speaks.faults(call):
            return None
        found = speaks.completion(response, call)
        assert isinstance(found, Completion), (kind, found)
    except ConfigError:
        return None
    rounds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        for _ in range(CALLS):
            speaks.request(call, where, "key")
            speaks.completion(response, call)
        rounds.append((time.perf_counter() - begun) / CALLS * 1e6)
    return statistics.median(rounds)
