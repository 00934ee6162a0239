"""What a submission came to: models, errors by code, and both ways of showing it."""

import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from shared.cli.results import Record
from shared.cli.summary import Failure, OfModel, Summary, as_object, of_records, show


def good(custom_id: str, model: str = "small", cost: str = "0.25") -> Record:
    return Record(custom_id, "completed", "text", "", cost, 10, 2, model)


def bad(custom_id: str, code: str) -> Record:
    return Record(custom_id, "failed", error=f"{code}: {code} of {custom_id}")


def test_errors_are_told_apart_by_code_the_most_frequent_first() -> None:
    _, failures = of_records([bad("a", "bad_key"), bad("b", "no_model"), good("c"), bad("d", "no_model")])
    assert failures == (Failure("no_model", "no_model of b", 2, "b"), Failure("bad_key", "bad_key of a", 1, "a"))


def test_a_job_that_ran_again_counts_as_it_ended_last() -> None:
    ran = [bad("a", "no_model"), bad("b", "no_model"), bad("c", "bad_key"), good("a"), bad("b", "no_model")]
    _, failures = of_records(ran)
    assert [(one.code, one.jobs, one.custom_id) for one in failures] == [("no_model", 1, "b"), ("bad_key", 1, "c")]
    assert of_records([*ran, good("b"), good("c")])[1] == ()


def test_models_are_added_up_and_an_unknown_price_is_not_free() -> None:
    models, _ = of_records([good("a"), good("b", "large"), good("c"), good("d", "large", cost="")])
    assert models == (OfModel("large", 2, 20, 4, None), OfModel("small", 2, 20, 4, Decimal("0.50")))


def summary(*records: Record, **counts: int) -> Summary:
    models, failures = of_records(records)
    all_counts = {"total": 3000, "completed": 0, "failed": 0, "cancelled": 0, "expired": 0, **counts}
    usage = {"input_tokens": 1200, "output_tokens": 30}
    batch: dict[str, Any] = {"id": "batch_1", "request_counts": all_counts, "usage": usage, "cost_usd": "0.000000001"}
    return Summary([batch, batch], Path("out.csv"), 4.0, 10, spent_before=False, models=models, failures=failures)


def test_the_object_for_programs_has_exact_money() -> None:
    shown = as_object(summary(good("a"), good("b", "large", ""), bad("c", "no_model"), completed=1, expired=2))
    assert shown["batches"] == ["batch_1", "batch_1"]
    assert {name: shown[name] for name in ("requests", "completed", "failed", "expired")} == {
        "requests": 6000,
        "completed": 2,
        "failed": 0,
        "expired": 4,
    }
    assert (shown["cost_usd"], shown["jobs_per_second"]) == ("0.000000002", 2.5)
    assert [one["cost_usd"] for one in shown["models"]] == [None, "0.25"]
    assert shown["errors"] == [{"code": "no_model", "message": "no_model of c", "jobs": 1, "custom_id": "c"}]


def test_a_pipe_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    codes = [bad(f"c{number}", f"code_{number}") for number in range(7)]
    found = summary(good("a"), good("b", "large"), *codes, completed=1500, cancelled=2)
    show(found, console=Console(file=io.StringIO(), force_terminal=False))
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "completed  3,000",
        "failed     0",
        "cancelled  4",
        "cost       $0.000000",
        "tokens     2,400 in, 60 out",
        "time       4 s",
        "rate       2.5 jobs/s",
        "results    out.csv",
        "large: 1 completed, 10 tokens in, 2 out, $0.250000",
        "small: 1 completed, 10 tokens in, 2 out, $0.250000",
    ]
    assert err.splitlines()[0] == "1 of the failed (c0): code_0: code_0 of c0"
    assert err.splitlines()[5:] == ["… and 2 other errors"]


def test_a_terminal_gets_tables_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    show(summary(good("a"), good("b", "large"), bad("\x1b[2J", "bad_key"), completed=1500), console=console)
    assert isinstance(console.file, io.StringIO)
    drawn = console.file.getvalue()
    assert all(text in drawn for text in ("3,000", "small", "large", "bad_key", "[2J"))
    assert "\x1b[2J" not in drawn
    assert capsys.readouterr() == ("", "")
