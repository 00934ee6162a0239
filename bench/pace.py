"""W1. A provider's limit of requests a minute: how long the jobs take against the least they can, and how many 429s."""

from pathlib import Path

from bench.figures import Figure
from bench.paced import JOBS, REQUEST_LIMIT, RPM, drain, least, lines

MOST = 1.03


async def run(directory: Path, database_url: str, redis_url: str) -> list[Figure]:
    shortest = least(JOBS)
    found = await drain(
        directory, database_url, redis_url,
        limits=f"{{rpm: {RPM}}}", upstream=REQUEST_LIMIT, jobs=lines(), patience=5 * shortest,
    )  # fmt: skip
    ratio = found.seconds / shortest
    text = f"W1 {ratio:.3f} x the least time (≤ {MOST}), {found.refused} x 429 (0): {found.against(shortest)}"
    return [Figure(text, found.completed == JOBS and ratio <= MOST and found.refused == 0)]
