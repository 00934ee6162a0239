import subprocess
import sys
from decimal import ROUND_HALF_UP, Decimal

import genai_prices
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.pricing import SIMULATED, Price, cost_nanos, usd
from shared.providers import Usage

COUNT = st.integers(0, 10_000_000)
# With one rate, with tiers by size, with a price for the call itself, and by the time of day.
LISTED = [
    ("openai", "openai", "gpt-4o"),
    ("openai", "openai", "gpt-5-mini"),
    ("openai", "openai", "gpt-5.4"),
    ("openai", "openai", "text-embedding-3-small"),
    ("anthropic", "anthropic", "claude-sonnet-4-5"),
    ("gemini", "google", "gemini-2.5-pro"),
    ("azure_openai", "azure", "gpt-5-mini"),
    ("bedrock", "aws", "us.anthropic.claude-haiku-4-5-20251001-v1:0"),
    ("mistral", "mistral", "mistral-small-latest"),
    ("xai", "x-ai", "grok-4"),
    ("perplexity", "perplexity", "sonar"),
    ("perplexity", "perplexity", "sonar-deep-research"),
    ("deepseek", "deepseek", "deepseek-chat"),
]


def test_a_configured_price_wins() -> None:
    price = Price(input=Decimal("0.25"), cached_input=Decimal("0.025"), output=Decimal("2"))
    usage = Usage(input=1_000, cached=100, output=500)
    assert cost_nanos("openai", "gpt-5-mini", usage, price=price) == 225_000 + 2_500 + 1_000_000
    assert cost_nanos("anything", "unheard-of", usage, price=price) == 1_227_500
    dear = Price(input=Decimal("0.25"), output=Decimal("2"))
    assert cost_nanos("openai", "x", usage, price=dear) == 250_000 + 1_000_000


def test_each_sort_of_token_may_have_its_own_configured_price() -> None:
    usage = Usage(input=1_000, cached=100, cache_write=200, output=500, reasoning=400)
    plain = Price(input=Decimal(1), output=Decimal(10))
    assert cost_nanos("openai", "x", usage, price=plain) == 1_000_000 + 5_000_000
    full = Price(
        input=Decimal(1), cached_input=Decimal("0.1"), cache_write=Decimal(2), output=Decimal(10), reasoning=Decimal(3)
    )
    assert cost_nanos("openai", "x", usage, price=full) == 700_000 + 10_000 + 400_000 + 1_000_000 + 1_200_000
    free = Price(
        input=Decimal(1), cached_input=Decimal(0), cache_write=Decimal(0), output=Decimal(1), reasoning=Decimal(0)
    )
    assert cost_nanos("openai", "x", usage, price=free) == 700_000 + 100_000


def test_what_was_written_to_a_cache_has_its_list_price() -> None:
    usage = Usage(input=1_000_000, cache_write=1_000_000)
    assert cost_nanos("anthropic", "claude-haiku-4-5", usage) == 1_250_000_000


@pytest.mark.parametrize(
    ("kind", "model", "tier", "nanos"),
    [
        ("openai", "gpt-5-mini", None, 250_000_000),
        ("openai", "gpt-5-mini", "default", 250_000_000),
        ("openai", "gpt-5-mini", "batch", 125_000_000),
        ("openai", "gpt-5-mini", "flex", 125_000_000),
        ("openai", "gpt-5-mini-2025-08-07", "priority", 450_000_000),
        ("openai", "gpt-4o-2024-05-13", "priority", 8_750_000_000),
        ("openai", "o3", "priority", None),
        ("openai", "gpt-5-mini", "scale", None),
        ("anthropic", "claude-haiku-4-5", "standard", 1_000_000_000),
        ("anthropic", "claude-haiku-4-5", "batch", 500_000_000),
        ("anthropic", "claude-haiku-4-5", "flex", None),
        ("gemini", "gemini-2.5-flash", "FLEX", 150_000_000),
        ("mistral", "mistral-small-latest", "batch", 75_000_000),
        ("litellm", "openai/gpt-5-mini", "flex", 125_000_000),
    ],
)
def test_a_service_tier_scales_the_list_price(kind: str, model: str, tier: str | None, nanos: int | None) -> None:
    assert cost_nanos(kind, model, Usage(input=1_000_000), service_tier=tier) == nanos


def test_a_service_tier_scales_a_configured_price_where_it_is_known() -> None:
    price, usage = Price(input=Decimal(1), output=Decimal(2)), Usage(input=1_000)
    tiers = ("batch", "flex", "priority", "unheard-of")
    costs = [cost_nanos("openai", "x", usage, price=price, service_tier=tier) for tier in tiers]
    assert costs == [500_000, 500_000, 1_000_000, 1_000_000]


def test_another_server_has_no_list_price() -> None:
    usage, price = Usage(input=1_000), Price(input=Decimal(1), output=Decimal(2))
    assert cost_nanos("openai", "gpt-4o", usage, listed=False) is None
    assert cost_nanos("openai", "gpt-4o", usage, listed=False, price=price) == 1_000_000
    assert cost_nanos("simulated", "gpt-4o", usage, listed=False) == 100_000


def test_the_list_price_of_a_known_model() -> None:
    assert cost_nanos("openai", "gpt-4o", Usage(input=1_000_000)) == 2_500_000_000
    assert cost_nanos("openai", "gpt-4o", Usage(input=1_000_000, cached=1_000_000)) == 1_250_000_000


@given(
    st.sampled_from(sorted(LISTED)),
    COUNT.flatmap(lambda asked: st.tuples(st.just(asked), st.integers(0, asked))),
    st.integers(0, 1_000_000).flatmap(lambda answered: st.tuples(st.just(answered), st.integers(0, answered))),
)
def test_list_prices_are_what_the_list_says_for_each_call(
    listed: tuple[str, str, str], asked: tuple[int, int], answered: tuple[int, int]
) -> None:
    kind, vendor, model = listed
    usage = genai_prices.Usage(
        input_tokens=asked[0],
        cache_read_tokens=asked[1],
        cache_write_tokens=0,
        output_tokens=answered[0],
        output_reasoning_tokens=answered[1],
    )
    dollars = genai_prices.calc_price(usage, model_ref=model, provider_id=vendor).total_price
    expected = int((dollars * 10**9).to_integral_value(ROUND_HALF_UP))
    used = Usage(input=asked[0], cached=asked[1], output=answered[0], reasoning=answered[1])
    assert cost_nanos(kind, model, used) == expected


def test_a_price_that_grows_with_the_call_is_not_taken_for_a_rate() -> None:
    few, many = (cost_nanos("openai", "gpt-5.4", Usage(input=number)) for number in (1_000, 1_000_000))
    assert few is not None
    assert many is not None
    assert many > few * 1_000


def test_half_a_nano_is_rounded_up() -> None:
    price = Price(input=Decimal("0.0005"), output=Decimal(0))  # half a nano-dollar a token
    assert [cost_nanos("openai", "x", Usage(input=number), price=price) for number in (1, 2, 3)] == [1, 1, 2]


def test_prices_are_never_fetched() -> None:
    code = """
import socket, threading
def refuse(*_, **__): raise AssertionError("the network was asked")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from shared.pricing import cost_nanos
from shared.providers import Usage
assert cost_nanos("openai", "gpt-4o", Usage(input=1)) == 2_500
assert threading.active_count() == 1
print("good")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "good", done.stderr


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("openai", "unheard-of-model"),
        ("nobody", "gpt-4o"),
        ("openai_compatible", "gpt-4o"),
        ("vllm", "gpt-4o"),
        ("gemini", "gpt-4o"),
        ("litellm", "gpt-4o"),
    ],
)
def test_an_unknown_price_is_none_and_not_zero(kind: str, model: str) -> None:
    assert cost_nanos(kind, model, Usage(input=10, output=10)) is None
    assert cost_nanos(kind, model, Usage()) is None


@given(COUNT, COUNT, COUNT)
def test_costs_are_whole_and_grow_with_use(asked: int, answered: int, more: int) -> None:
    cost = cost_nanos("simulated", "m", Usage(input=asked, output=answered))
    assert isinstance(cost, int)
    assert cost == asked * 100 + answered * 400  # SIMULATED in nano-dollars a token
    dearer = cost_nanos("simulated", "m", Usage(input=asked + more, output=answered))
    assert dearer is not None
    assert dearer >= cost
    assert SIMULATED.output > SIMULATED.input


@pytest.mark.parametrize(
    ("nanos", "shown"),
    [(0, "0.00"), (1, "0.000000001"), (123_450, "0.00012345"), (1_500_000_000, "1.50"), (10**18, "1000000000.00")],
)
def test_money_is_a_plain_decimal(nanos: int, shown: str) -> None:
    assert usd(nanos) == shown


@given(st.integers(-(10**15), 10**15))
def test_no_nano_is_lost(nanos: int) -> None:
    assert Decimal(usd(nanos)) * 10**9 == nanos
