"""The tally of batches, money and time as people read them, and the plain line of a pipe."""

import io
from collections import deque
from decimal import Decimal
from typing import Any

import pytest
from rich.console import Console

from shared.cli.output import brief, clean, moment
from shared.cli.progress import Progress, Tally, duration, money, rate, usd


def batch(cost: str | None, **counts: int) -> dict[str, Any]:
    ended = {"total": 9, "completed": 0, "failed": 0, "cancelled": 0, "expired": 0, **counts}
    return {"request_counts": ended, "usage": {"input_tokens": 10, "output_tokens": 3}, "cost_usd": cost}


def test_batches_add_up() -> None:
    tally = Tally.of([batch("0.1", completed=2, failed=1), batch("0.2", completed=1, cancelled=1, expired=1)])
    assert tally == Tally(completed=3, failed=3, cost=Decimal("0.3"), input_tokens=20, output_tokens=6)
    assert tally.done == 6


def test_an_unknown_price_is_not_free() -> None:
    tally = Tally.of([batch("0.1"), batch(None), batch("0.2")])
    assert tally.cost is None
    assert money(tally.cost) == "cost unknown"


@pytest.mark.parametrize(
    ("amount", "shown"), [("0", "$0.00"), ("0.000123456", "$0.000123"), ("1234.567", "$1,234.57"), ("0.5", "$0.500000")]
)
def test_money(amount: str, shown: str) -> None:
    assert money(Decimal(amount)) == shown


@pytest.mark.parametrize("value", [None, 1.5, "much", "NaN", "Infinity", ""])
def test_what_is_no_amount_is_unknown(value: object) -> None:
    assert usd(value) is None


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_duration(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_the_rate_is_that_of_the_window() -> None:
    assert rate(deque([(10.0, 100)])) == 0.0
    assert rate(deque([(10.0, 100), (12.0, 160)])) == 30.0


def test_a_pipe_gets_a_plain_line_at_the_end_once() -> None:
    console = Console(file=io.StringIO(), force_terminal=False, width=20)
    with Progress("Running", total=9, console=console) as progress:
        progress.show(Tally(completed=3))
        progress.show(Tally(completed=8, failed=1, cost=Decimal("0.5")))
        progress.show(Tally(completed=8, failed=1, cost=Decimal("0.5")))
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert printed.count("\n") == 1
    assert printed.startswith("Running: 9/9 · 1 failed · ")
    assert printed.rstrip().endswith("$0.500000")


def test_a_terminal_gets_a_line_in_place() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Progress("Running", total=4, console=console) as progress:
        progress.show(Tally(completed=1))
    assert isinstance(console.file, io.StringIO)
    assert "1/4" in console.file.getvalue()


def test_text_from_outside_cannot_drive_a_terminal() -> None:
    assert clean("a\x1b[2Jb\rc\n\td\x9b") == "a[2Jbc\n\td"


def test_a_message_that_names_every_line_is_cut_in_its_middle() -> None:
    assert brief("short") == "short"
    assert brief("a" * 800) == "a" * 800
    cut = brief("the beginning" + "x" * 5000 + "the end")
    assert len(cut) == 800
    assert (cut.startswith("the beginning"), " … " in cut, cut.endswith("the end")) == (True, True, True)


def test_moments_are_to_the_second_in_utc() -> None:
    assert moment("2026-11-21T05:00:00.123456Z") == "2026-11-21 05:00:00"
    assert moment(1_795_237_200) == "2026-11-21 05:00:00"
    assert moment(None) == "-"
