"""W3. W1's limit, which nobody has told the gateway: learned from the answers' headers, and from 429s alone."""

from pathlib import Path

from bench.figures import Figure
from bench.paced import JOBS, REQUEST_LIMIT, drain, least, lines

MOST, MOST_REFUSED = 1.25, 0.02


async def run(directory: Path, database_url: str, redis_url: str) -> list[Figure]:
    shortest = least(JOBS)
    figures = []
    for name, option in (("with headers", "--headers"), ("429s alone", "--no-headers")):
        own = directory / option.strip("-")
        own.mkdir()
        found = await drain(
            own, database_url, redis_url,
            limits="{}", upstream=(*REQUEST_LIMIT, option), jobs=lines(), patience=5 * shortest,
        )  # fmt: skip
        ratio, share = found.seconds / shortest, found.refused / found.calls
        text = (
            f"W3 {name}: {ratio:.3f} x the least time (≤ {MOST}), {100 * share:.2f} % x 429 "
            f"(≤ {100 * MOST_REFUSED:g}): {found.against(shortest)}"
        )
        figures.append(Figure(text, found.completed == JOBS and ratio <= MOST and share <= MOST_REFUSED))
    return figures
