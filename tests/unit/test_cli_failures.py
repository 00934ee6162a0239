"""Why jobs failed, as a results file says."""

from pathlib import Path

import orjson

from shared.cli.failures import Failure, commonest


def write(path: Path, *lines: tuple[str, str | None]) -> Path:
    made = [{"custom_id": id_, "error": code and {"code": code, "message": f"{code} of {id_}"}} for id_, code in lines]
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in made))
    return path


def test_the_commonest_error_is_told_with_its_first_message(tmp_path: Path) -> None:
    file = write(tmp_path / "r", ("a", "bad_key"), ("b", "no_model"), ("c", None), ("d", "no_model"))
    assert commonest(file) == Failure("no_model", "no_model of b", 2)


def test_a_job_that_ran_again_counts_as_it_ended_last(tmp_path: Path) -> None:
    lines = (("a", "no_model"), ("b", "no_model"), ("c", "bad_key"), ("a", None), ("b", "no_model"))
    assert commonest(write(tmp_path / "r", *lines)) == Failure("no_model", "no_model of a", 1)
    assert commonest(write(tmp_path / "r", *lines, ("b", None), ("c", None))) is None
