"""W2. A limit of tokens a minute beside that of requests, where nobody knows beforehand how long an answer will be."""

import random
from pathlib import Path
from typing import Any

from bench.figures import Figure
from bench.paced import JOBS, LATENCY_MS, REQUEST_LIMIT, RPM, drain, least
from shared import tokens
from tests.gateway import line

TPM = 300_000
TOKENS = (100, 600)
"""What a job uses, in and out together."""
COUNTED_AS = "gpt-4o"
MOST, MOST_REFUSED = 1.08, 0.002


async def run(directory: Path, database_url: str, redis_url: str) -> list[Figure]:
    tokens.load()
    rng = random.Random(2)
    sizes = [rng.randint(*TOKENS) for _ in range(JOBS)]
    shortest = max(least(JOBS), least(sum(sizes), a_minute=TPM, burst=TPM / 60))
    found = await drain(
        directory, database_url, redis_url,
        limits=f"{{rpm: {RPM}, tpm: {TPM}}}", upstream=(*REQUEST_LIMIT, "--tpm", str(TPM)),
        jobs=[_sized(size) for size in sizes], patience=3 * shortest,
    )  # fmt: skip
    ratio, share = found.seconds / shortest, found.refused / found.calls
    text = (
        f"W2 {ratio:.3f} x the least time (≤ {MOST}), {100 * share:.2f} % x 429 (≤ {100 * MOST_REFUSED:g}): "
        f"{found.against(shortest)}, {sum(sizes):,} tokens"
    )
    return [Figure(text, found.completed == JOBS and ratio <= MOST and share <= MOST_REFUSED)]


def _sized(size: int) -> dict[str, Any]:
    """Return a job that uses exactly `size` tokens, about a third of them in its prompt."""
    text = "word " * (size // 3)
    given = tokens.count_request(line(text=text)["body"], COUNTED_AS).tokens
    return line(text=text, priority="bulk", simulate={"latency_ms": LATENCY_MS, "output_tokens": size - given})
