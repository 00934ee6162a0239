"""A stock arq worker, tuned, whose jobs do nothing: what the drain is compared with.

`python -m bench.stock_arq URL`.
"""

import asyncio
import logging
import sys
from typing import Any

import uvloop
from arq.connections import RedisSettings
from arq.worker import Worker


async def nothing(_: dict[str, Any]) -> None:
    """Do nothing."""


def main(url: str) -> None:
    logging.disable(logging.CRITICAL)
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    Worker(
        functions=[nothing],
        redis_settings=RedisSettings.from_dsn(url),
        max_jobs=500,
        poll_delay=0.01,
        keep_result=0,
        log_results=False,
        job_completion_wait=1,
    ).run()


if __name__ == "__main__":
    main(sys.argv[1])
