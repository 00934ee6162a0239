from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.allowance import Allowance, allowances

NOW = datetime(2026, 11, 21, 5, 0, 0, tzinfo=UTC)


def in_ms(seconds: float) -> str:
    return str(round((NOW.timestamp() + seconds) * 1000))


def openai(limit: str, left: str | None = None, reset: str | None = None, *, what: str = "requests") -> dict[str, str]:
    said = {"limit": limit, "remaining": left, "reset": reset}
    return {f"x-ratelimit-{word}-{what}": text for word, text in said.items() if text is not None}


def draft(limit: str, left: str, reset: str, policy: str | None = None) -> dict[str, str]:
    said = {"limit": limit, "remaining": left, "reset": reset, "policy": policy}
    return {f"ratelimit-{word}": text for word, text in said.items() if text is not None}


# What vendors were seen to send, or say that they do, and what it means.
VENDORS = {
    # https://community.openai.com/t/how-to-get-rate-limit-reset-time-for-response-api/1268905
    "openai": (
        {
            **openai("5000", "4999", "12ms"),
            **openai("160000", "159976", "9ms", what="tokens"),
            **openai("160000", "159976", "9ms", what="tokens_usage_based"),
        },
        {"r": Allowance(5000, 4999, 5000), "t": Allowance(160_000, 159_976, 160_000)},
    ),
    # https://platform.openai.com/docs/guides/rate-limits (16 tokens do not take 6 minutes: they are too few to tell)
    "openai's example": (
        {**openai("60", "59", "1s"), **openai("150000", "149984", "6m0s", what="tokens")},
        {"r": Allowance(60, 59, 60), "t": Allowance(150_000, 149_984, 150_000)},
    ),
    # https://learn.microsoft.com/azure/ai-services/openai/how-to/quota, as seen in 2026: seconds, and the window named
    "azure": (
        {
            **openai("2500", "2499", "24"),
            **openai("250000", "249993", "1", what="tokens"),
            "x-ratelimit-renewalperiod-requests": "60",
            "x-ratelimit-renewalperiod-tokens": "60",
            "x-ratelimit-abusepenalty-active": "False",
        },
        {"r": Allowance(2500, 2499, 2500), "t": Allowance(250_000, 249_993, 250_000)},
    ),
    "azure, ten seconds": (
        openai("50", "45", "8") | {"x-ratelimit-renewalperiod-requests": "10"},
        {"r": Allowance(300, 45, 50)},
    ),
    # a 429 of it, as seen: a bucket that holds nothing is none
    "azure, used up": (
        openai("5000", "0", "0", what="tokens") | {"x-ratelimit-renewalperiod-tokens": "60"},
        {"t": Allowance(5000, 0, None)},
    ),
    # https://github.com/EvolvingPrograms/oaib/issues/11
    "azure before": ({"x-ratelimit-remaining-requests": "79", "x-ratelimit-remaining-tokens": "61353"}, {}),
    # https://github.com/openai/openai-dotnet/issues/838
    "azure, odd": (openai("-1", "-1", "0", what="tokens"), {}),
    # https://console.groq.com/docs/rate-limits: requests a day, tokens a minute
    "groq": (
        {
            **openai("14400", "14370", "2m59.56s"),
            **openai("18000", "17997", "7.66s", what="tokens"),
            "retry-after": "2",
        },
        {"t": Allowance(18_000, 17_997, 18_000)},
    ),
    "groq, a small day": (
        {**openai("1000", "999", "1m26.4s"), **openai("6000", "5963", "370ms", what="tokens")},
        {"t": Allowance(6000, 5963, 6000)},
    ),
    "groq, little left": (
        {**openai("1000", "942", "1h23m31s"), **openai("6000", "600", "54s", what="tokens")},
        {"t": Allowance(6000, 600, 6000)},
    ),
    # https://docs.anthropic.com/en/api/rate-limits; these values: the R package tidyllm's recorded answers
    "anthropic": (
        {
            "anthropic-ratelimit-input-tokens-limit": "80000",
            "anthropic-ratelimit-input-tokens-remaining": "60000",
            "anthropic-ratelimit-input-tokens-reset": "2026-11-21T05:00:15Z",
            "anthropic-ratelimit-output-tokens-limit": "16000",
            "anthropic-ratelimit-output-tokens-remaining": "16000",
            "anthropic-ratelimit-output-tokens-reset": "2026-11-21T05:00:00Z",
            "anthropic-ratelimit-requests-limit": "1000",
            "anthropic-ratelimit-requests-remaining": "999",
            "anthropic-ratelimit-requests-reset": "2026-11-21T05:00:01Z",
            "anthropic-ratelimit-tokens-limit": "96000",
            "anthropic-ratelimit-tokens-remaining": "76000",
            "anthropic-ratelimit-tokens-reset": "2026-11-21T04:59:59Z",
        },
        {
            "r": Allowance(1000, 999, 1000),
            "t": Allowance(96_000, 76_000, 76_000),
            "i": Allowance(80_000, 60_000, 80_000),
            "o": Allowance(16_000, 16_000, 16_000),
        },
    ),
    # https://github.com/mistralai/client-ts/issues/169
    "mistral": (
        {
            "x-ratelimit-limit-tokens-minute": "5000000",
            "x-ratelimit-remaining-tokens-minute": "4999911",
            "x-ratelimit-tokens-query-cost": "52",
            "x-ratelimit-limit-req-minute": "720",
            "x-ratelimit-remaining-req-minute": "717",
        },
        {"r": Allowance(720, 717, None), "t": Allowance(5_000_000, 4_999_911, None)},
    ),
    # the same, of a model that the plan does not have
    "mistral, not on the plan": ({"x-ratelimit-limit-req-minute": "0"}, {}),
    # https://github.com/prism-php/prism (its Mistral fixtures)
    "mistral before": (
        {"ratelimitbysize-limit": "500000", "ratelimitbysize-remaining": "499900", "ratelimitbysize-reset": "28"},
        {"t": Allowance(500_000, 499_900, 500_000)},
    ),
    "mistral in between": (
        {
            "ratelimitbysize-limit": "500000",
            "ratelimitbysize-remaining": "499900",
            "ratelimitbysize-reset": "3",
            "x-ratelimitbysize-limit-minute": "250000",
            "x-ratelimitbysize-remaining-minute": "249900",
            "x-ratelimitbysize-limit-month": "1000000000",
        },
        {"t": Allowance(250_000, 249_900, None)},
    ),
    # https://inference-docs.cerebras.ai/support/rate-limits
    "cerebras": (
        {
            **openai("1000000000", "999997455", "33011.382867097855", what="requests-day"),
            **openai("60000", "30000", "11.382867097854614", what="tokens-minute"),
        },
        {"t": Allowance(60_000, 30_000, pytest.approx(30_000 + 11_382.867))},
    ),
    # https://docs.together.ai/docs/rate-limits: all of it a second's
    "together": (
        {
            "x-ratelimit-limit": "10",
            "x-ratelimit-remaining": "9",
            "x-ratelimit-reset": "1",
            "x-tokenlimit-limit": "3000",
            "x-tokenlimit-remaining": "2900",
        },
        {"r": Allowance(600, 9, 10), "t": Allowance(180_000, 2900, None)},
    ),
    # https://docs.fireworks.ai/serverless/overview: tokens a second; requests, where they are said, a minute
    "fireworks": (
        {
            "x-ratelimit-limit-requests": "6000",
            "x-ratelimit-limit-tokens-prompt": "60000",
            "x-ratelimit-limit-tokens-cache-adjusted-prompt": "15000",
            "x-ratelimit-limit-tokens-generated": "600",
        },
        {"r": Allowance(6000, None, None), "i": Allowance(3_600_000, None, None), "o": Allowance(36_000, None, None)},
    ),
    # https://openrouter.ai/docs/api-reference/limits: of a minute, and of a day that ends at midnight
    "openrouter": (
        {"x-ratelimit-limit": "20", "x-ratelimit-remaining": "19", "x-ratelimit-reset": in_ms(50)},
        {"r": Allowance(20, 19, 20)},
    ),
    "openrouter, free a day": (
        {"x-ratelimit-limit": "50", "x-ratelimit-remaining": "0", "x-ratelimit-reset": in_ms(19 * 3600)},
        {},
    ),
    "openrouter, free a day, none used": (
        {"x-ratelimit-limit": "50", "x-ratelimit-remaining": "50", "x-ratelimit-reset": in_ms(19 * 3600)},
        {},
    ),
    # https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-ratelimit-headers-06
    "ietf": (draft("100", "50", "15"), {"r": Allowance(100, 50, 75)}),
    "ietf, a policy": (draft("100", "50", "5", "100;w=10"), {"r": Allowance(600, 50, 100)}),
    "ietf, two policies": (draft("10", "9", "1", "10;w=1, 50;w=60"), {"r": Allowance(600, 9, 10)}),
    "ietf, the day's policy": (draft("5000", "100", "36000", "10;w=1, 5000;w=86400"), {}),
    # https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-ratelimit-headers-03
    "ietf before": (draft("100, 100;w=30", "50", "15"), {"r": Allowance(200, 50, 100)}),
    # https://www.ietf.org/archive/id/draft-ietf-httpapi-ratelimit-headers-10.txt
    "ietf, not requests": (draft("100", "50", "5", '"peruser";q=100;w=60;qu="content-bytes"'), {}),
    # Baidu's Qianfan, in the documentation of its chat API: of a minute
    "input and output": (
        {**openai("30000", "29000", what="input-tokens"), **openai("3000", "2900", what="output-tokens")},
        {"i": Allowance(30_000, 29_000, None), "o": Allowance(3000, 2900, None)},
    ),
    "nobody": ({"content-type": "application/json", "retry-after": "3"}, {}),
}


@pytest.mark.parametrize(("headers", "said"), VENDORS.values(), ids=VENDORS)
def test_a_vendors_headers(headers: dict[str, str], said: dict[str, Allowance]) -> None:
    assert allowances(headers, NOW) == said


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("6m0s", 360),
        ("12ms", 0.012),
        ("1h2m3.5s", 3723.5),
        ("2m59.56s", 179.56),
        ("1.5ms", 0.0015),
        ("850µs", 0.00085),
        ("5m", 300),
        ("7", 7),
        ("11.38", 11.38),
        (" 7 ", 7),
        (in_ms(9), 9),
        (str(round(NOW.timestamp()) + 9), 9),
        ("2026-11-21T05:00:09Z", 9),
        ("2026-11-21T05:00:09.250+00:00", 9.25),
        ("2026-11-21T00:00:09-05:00", 9),
        ("2026-11-21T04:59:57Z", 0),
    ],
)
def test_how_a_reset_is_written(text: str, seconds: float) -> None:
    said = {"limit": "60000000", "remaining": "1", "reset": text}
    burst = allowances({f"x-ratelimit-{word}-tokens-minute": value for word, value in said.items()}, NOW)["t"].burst
    assert burst == pytest.approx(min(60_000_000, 1 + seconds * 1_000_000))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "-1",
        "nan",
        "inf",
        "1e3",
        "1_0",
        "0x1",
        "3m4h",
        "1s2s",
        "ms",
        "2026-11-21T04:00:00Z",
        "2026-11-21T05:00:09",
        "999999999h",
        "9" * 14,
    ],
)
def test_a_reset_that_is_nonsense_counts_as_absent(text: str) -> None:
    assert allowances(openai("100", "50", text), NOW) == {"r": Allowance(100, 50, None)}


@pytest.mark.parametrize("text", ["0", "0.0"])
def test_a_limit_of_nothing_counts_as_absent(text: str) -> None:
    assert allowances(openai(text, "0", "1s"), NOW) == {}


@pytest.mark.parametrize("text", ["", "-5", "nan", "inf", "1e3", "many", "1,000", "1000000000001", "٣"])
def test_a_count_that_is_nonsense_counts_as_absent(text: str) -> None:
    assert allowances(openai(text, "50", "1s"), NOW) == {}
    assert allowances(openai("100", text, "1s"), NOW) == {"r": Allowance(100, None, None)}


@pytest.mark.parametrize(
    ("limit", "left", "reset", "a_minute"),
    [
        ("100", "50", "30s", 100),  # half used, half a minute: a minute
        ("100", "50", "1m0s", 50),  # two minutes
        ("100", "0", "5m0s", 20),
        ("100", "0", "10m0s", 10),
        ("100", "0", "10m1s", None),  # longer than ten minutes
        ("100", "50", "50ms", 100),  # the bucket holds a tenth of a second's worth
        ("2000000", "1999980", "1ms", 2_000_000),  # rounded up from 0.6 ms: too little used to tell
        ("14400", "14399", "6s", 14_400),  # a day's, but too little used to tell
        ("14400", "14385", "1m30s", None),
        ("1000", "999", "1s", 1000),  # rounded up from 60 ms
        ("6000", "5234", "7.7s", 6000),  # a little more than a minute: not of one moment
        ("100", "100", "0s", 100),
        ("100", "101", "0s", 100),
        ("100", "100", "1h0m0s", None),
        ("100", None, "1h0m0s", None),
        ("100", None, "30s", 100),
        ("100", "99", "50", 100),  # seconds to a minute's end say nothing of a bucket
        ("100", "40", "150", 24),
        ("100", "50", "7200", None),
    ],
)
def test_the_window_as_its_reset_tells(limit: str, left: str | None, reset: str, a_minute: float | None) -> None:
    found = allowances(openai(limit, left, reset), NOW)
    assert (found["r"].a_minute if found else None) == (None if a_minute is None else pytest.approx(a_minute))


@given(limit=st.integers(10, 10**6), part=st.floats(0.05, 0.95), window=st.floats(70, 590), capacity=st.floats(0.1, 1))
def test_a_bucket_that_refills_evenly_tells_its_window(limit: int, part: float, window: float, capacity: float) -> None:
    left = limit * (1 - part)
    found = allowances(openai(str(limit), f"{left:.6f}", f"{window * part:.6f}s"), NOW)
    assert found["r"].a_minute == pytest.approx(limit * 60 / window, rel=0.01)
    assert found["r"].burst == pytest.approx(limit, rel=0.01)


@given(limit=st.integers(100, 10**6), bucket=st.floats(0.02, 1), part=st.floats(0, 1))
def test_a_small_bucket_tells_what_it_holds(limit: int, bucket: float, part: float) -> None:
    holds = limit * bucket
    seconds = holds * part / limit * 60  # until it is full at a minute's pace
    found = allowances(openai(str(limit), f"{holds * (1 - part):.6f}", f"{seconds:.6f}s"), NOW)
    assert found["r"].a_minute == limit
    assert found["r"].burst == pytest.approx(holds, rel=0.001, abs=0.01)


def test_the_first_that_says_something_is_believed() -> None:
    both = {**openai("100", "50", "30s"), **draft("7", "6", "5")}
    assert allowances(both, NOW)["r"].a_minute == 100
    assert allowances(both | openai("nonsense"), NOW)["r"].a_minute == 7


def test_a_moment_is_reckoned_from_now() -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=30)).isoformat()
    names = {"limit": "6000", "remaining": "0", "reset": soon}
    found = allowances({f"anthropic-ratelimit-requests-{word}": text for word, text in names.items()})
    assert found["r"].burst == pytest.approx(3000, abs=500)


NAMES = sorted({name for headers, _ in VENDORS.values() for name in headers})
PIECES = (
    "0",
    "7",
    "1e999",
    "-",
    ".",
    "h",
    "m",
    "s",
    "ms",
    ";w=",
    "qu=",
    '"',
    ",",
    " ",
    "Z",
    "T",
    ":",
    "+",
    "nan",
    "²",
    "\0",
)
VALUES = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.floats().map(str),
    st.integers().map(str),
    st.datetimes(timezones=st.timezones()).map(datetime.isoformat),
    st.datetimes().map(datetime.isoformat),
)


@given(st.dictionaries(st.sampled_from(NAMES), VALUES, min_size=1))
@example({"ratelimit-limit": "1", "ratelimit-policy": "1;w=0"})
@example({"ratelimit-limit": "1", "ratelimit-policy": "0"})
@example(openai("1", "0", "9" * 12 + "h"))
@example(openai("1", "0", "0001-01-01T00:00:00+23:59"))
@example(openai("1", "0", "9999-12-31T23:59:59-23:59"))
@example(openai("0." + "0" * 19 + "1", "0", "1ms"))
def test_no_header_breaks_it(headers: dict[str, str]) -> None:
    for allowance in allowances(headers, NOW).values():
        assert 0 < allowance.a_minute < 1e15
        assert allowance.left is None or 0 <= allowance.left <= 1e12
        assert allowance.burst is None or 0 < allowance.burst <= 1e12
