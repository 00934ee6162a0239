"""What is replaced of arq is what arq 0.28.0 has; see docs/adr/0001."""

import hashlib
import importlib.metadata
import inspect

import pytest
from arq.worker import Worker

from workers.pool import PoolWorker

# Replaced, and `run_job`, whose way of calling the others is relied upon.
SOURCES = {
    "_poll_iteration": "f8d39d823a0a59f27a45f1c0e80bee44e16219d5072235fbc81866402298322f",
    "run_job": "589a19059ff84ee777552dc9fa5ff76b17d6d0d7f99716d2720a2ed07ccb9607",
    "finish_job": "903f09c92830d3fd8044e19cc409074d9b62143218f73c3101a1ef5f724b22ce",
    "finish_failed_job": "3e16087f318a7acfbe79189a682d732fc43a3fce1917689e96990cb14d30bee2",
}


def test_the_version_is_the_one_this_was_written_against() -> None:
    assert importlib.metadata.version("arq") == "0.28.0"


@pytest.mark.parametrize("name", SOURCES)
def test_the_source_is_the_one_this_was_written_against(name: str) -> None:
    source = inspect.getsource(getattr(Worker, name))
    assert hashlib.sha256(source.encode()).hexdigest() == SOURCES[name]


def test_nothing_else_of_arq_is_replaced() -> None:
    replaced = {name for name in vars(PoolWorker) if name in dir(Worker) and not name.startswith("__")}
    assert replaced == SOURCES.keys() - {"run_job"}
