"""What follows a receiver's answer: the schedule of tries."""

import random
from datetime import timedelta

import pytest

from workers.deliver import SCHEDULE, after_try
from workers.post import Answer


@pytest.mark.parametrize(
    ("answer", "tries", "status", "least", "most"),
    [
        (Answer(1, 200), 1, "delivered", None, None),
        (Answer(1, 299), 10, "delivered", None, None),
        (Answer(1, 302), 1, "pending", 4.5, 5.5),
        (Answer(1, 410), 1, "disabled", None, None),
        (Answer(1, 500), 9, "pending", 86_400 * 0.9, 86_400 * 1.1),
        (Answer(1, 500), 10, "exhausted", None, None),
        (Answer(1, error="x"), 2, "pending", 270, 330),
        (Answer(1, 429, asked=600.0), 1, "pending", 600, 600),
        (Answer(1, 502), 1, "pending", 9, 11),
    ],
)
def test_what_follows_an_answer(
    answer: Answer, tries: int, status: str, least: float | None, most: float | None
) -> None:
    for seed in range(20):
        found, wait = after_try(tries, answer, random.Random(seed))
        assert found == status
        if least is None or most is None:
            assert wait is None
        else:
            assert wait is not None
            assert least <= wait <= most
    assert timedelta(seconds=sum(SCHEDULE)) > timedelta(days=3)
