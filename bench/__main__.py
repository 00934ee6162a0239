"""`python -m bench [NAME…]`: runs benchmarks on embedded servers and prints a table of what was reached."""

import sys
import tempfile
from pathlib import Path

import uvloop

from bench import (
    accept,
    adapters,
    backlog,
    batches,
    deliveries,
    drain,
    eta,
    fairness,
    files,
    inline,
    memory,
    outage,
    overspend,
    pace,
    pickup,
    synchronous,
    token_pace,
    unknown_pace,
    usage,
)
from bench.figures import Figure
from shared.embedded import postgres, redis

BENCHMARKS = {
    "pickup": pickup,
    "drain": drain,
    "accept": accept,
    "inline": inline,
    "memory": memory,
    "adapters": adapters,
    "synchronous": synchronous,
    "pace": pace,
    "token_pace": token_pace,
    "unknown_pace": unknown_pace,
    "outage": outage,
    "overspend": overspend,
    "eta": eta,
    "fairness": fairness,
    "backlog": backlog,
    "usage": usage,
    "files": files,
    "batches": batches,
    "deliveries": deliveries,
}


async def main(names: list[str]) -> int:
    figures: list[Figure] = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="sluice-bench-") as directory:
            path = Path(directory)
            path.chmod(0o711)  # Postgres, as another user where we are root, passes through
            async with postgres.running(path) as database, redis.running(path) as queue:
                found = await BENCHMARKS[name].run(path, database.url, queue.url)
        for figure in found:
            print(f"{'reached' if figure.reached else 'MISSED '}  {name:12} {figure.text}", flush=True)
        figures += found
    return 0 if all(figure.reached for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(uvloop.run(main(sys.argv[1:] or list(BENCHMARKS))))
