"""`hedge` in the configuration of a model."""

from decimal import Decimal

import pytest
from pydantic import ValidationError

from shared.config_models import Hedge, Model


@pytest.mark.parametrize(
    ("written", "seconds"), [("p95", None), ("1500ms", 1.5), ("2s", 2.0), ("2", 2.0), (0.5, 0.5), ("1m", 60.0)]
)
def test_a_call_is_late_after_p95_or_a_time(written: object, seconds: float | None) -> None:
    assert Hedge.model_validate({"after": written, "max_cost_usd": "0.01"}).after == seconds


def test_p95_is_the_default_and_no_hedge_is_the_models() -> None:
    found = Hedge.model_validate({"max_cost_usd": 0.01})
    assert (found.after, found.max_cost_usd) == (None, Decimal("0.01"))
    assert Model.model_validate({"targets": ["a/b"]}).hedge is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "required"),
        ({"max_cost_usd": True}, "must be a number"),
        ({"max_cost_usd": 0}, "greater than 0"),
        ({"max_cost_usd": "much"}, "valid decimal"),
        ({"max_cost_usd": 1, "after": "p99"}, "must be p95, or a duration"),
        ({"max_cost_usd": 1, "after": True}, "must be p95, or a duration"),
        ({"max_cost_usd": 1, "after": None}, "must be p95, or a duration"),
        ({"max_cost_usd": 1, "after": "0s"}, "greater than 0"),
        ({"max_cost_usd": 1, "before": "2s"}, "not permitted"),
    ],
)
def test_anything_else_is_a_fault(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Hedge.model_validate(wrong)
    assert said in str(caught.value)
