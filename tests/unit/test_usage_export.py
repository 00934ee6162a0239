"""Vendors' exports as they come, and what is made of them."""

from datetime import date
from decimal import Decimal
from typing import Any

import orjson
import pytest

from shared.cli.client import CliError
from shared.cli.usage_comparison import canonical, compared, days_of, within
from shared.cli.usage_export import Export, Line, read

DAY = date(2026, 3, 10)
SECONDS = 1773100800
ISO = "2026-03-10T00:00:00+00:00"

OPENAI_USAGE = {
    "object": "page",
    "data": [
        {
            "object": "bucket", "start_time": SECONDS, "end_time": SECONDS + 86_400,
            "results": [
                {
                    "object": "organization.usage.completions.result", "input_tokens": 1000, "output_tokens": 500,
                    "input_cached_tokens": 800, "input_audio_tokens": 0, "num_model_requests": 5, "project_id": None,
                    "model": "gpt-5-mini-2025-08-07", "batch": None,
                }
            ],
        },
        {"object": "bucket", "start_time": SECONDS + 86_400, "end_time": SECONDS + 172_800, "results": []},
    ],
    "has_more": False, "next_page": None,
}  # fmt: skip
OPENAI_COSTS = {
    "object": "page",
    "data": [
        {
            "object": "bucket", "start_time": SECONDS, "end_time": SECONDS + 86_400,
            "results": [
                {
                    "object": "organization.costs.result", "amount": {"value": 0.06, "currency": "usd"},
                    "line_item": "gpt-5-mini-2025-08-07, input", "project_id": None,
                }
            ],
        }
    ],
    "has_more": False,
}  # fmt: skip
ANTHROPIC_USAGE = {
    "data": [
        {
            "starting_at": "2026-03-10T00:00:00Z", "ending_at": "2026-03-11T00:00:00Z",
            "results": [
                {
                    "uncached_input_tokens": 1500, "cache_read_input_tokens": 200, "output_tokens": 500,
                    "cache_creation": {"ephemeral_1h_input_tokens": 1000, "ephemeral_5m_input_tokens": 500},
                    "model": "claude-haiku-4-5-20251001", "server_tool_use": {"web_search_requests": 10},
                }
            ],
        }
    ],
    "has_more": False, "next_page": None,
}  # fmt: skip
ANTHROPIC_COSTS = {
    "data": [
        {
            "starting_at": "2026-03-10T00:00:00Z", "ending_at": "2026-03-11T00:00:00Z",
            "results": [{"amount": "123.45", "currency": "USD", "model": "claude-haiku-4-5"}],
        }
    ],
    "has_more": False,
}  # fmt: skip
OPENAI_USAGE_CSV = f"""start_time,end_time,start_time_iso,end_time_iso,project_id,num_model_requests,user_id,\
api_key_id,model,batch,service_tier,input_tokens,output_tokens,input_cached_tokens,input_audio_tokens
{SECONDS},{SECONDS + 60},{ISO},{ISO},proj_1,5.0,,key_1,gpt-5-mini-2025-08-07,,,1000.0,500.0,800.0,0
{SECONDS + 60},{SECONDS + 120},{ISO},{ISO},,,,,,,,,,,
"""
OPENAI_COSTS_CSV = f"""start_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,quantity,\
quantity_unit,line_item,user_id,api_key_id,project_id,organization_id
{SECONDS},{SECONDS + 86_400},{ISO},{ISO},,,,,,,,,
{SECONDS},{SECONDS + 86_400},{ISO},{ISO},0.060000000000,usd,1000,tokens,"gpt-5-mini, input_tokens",,key_1,proj_a,org
"""
ANTHROPIC_USAGE_CSV = """\ufeffusage_date_utc,model_version,api_key,workspace,usage_type,context_window,\
usage_input_tokens_no_cache,usage_input_tokens_cache_write_5m,usage_input_tokens_cache_write_1h,\
usage_input_tokens_cache_read,usage_output_tokens,web_search_count,inference_geo,speed
2026-03-10,claude-haiku-4-5-20251001,k,Default,standard,≤ 200k,1500,500,1000,200,500,0,global,
"""
ANTHROPIC_COSTS_CSV = """usage_date_utc,model,workspace,api_key,usage_type,context_window,token_type,cost_usd,\
list_price_usd,cost_type,inference_geo,speed
2026-03-10,Claude Haiku 4.5,Default,k,message,≤ 200k,output,1.23,1.23,token,global,
"""
HAIKU = "claude-haiku-4-5-20251001"
MINI = "gpt-5-mini-2025-08-07"


@pytest.mark.parametrize(
    ("raw", "vendor", "line"),
    [
        (orjson.dumps(OPENAI_USAGE), "openai", Line(DAY, MINI, 1000, 800, 500)),
        (orjson.dumps([OPENAI_USAGE]), "openai", Line(DAY, MINI, 1000, 800, 500)),
        (orjson.dumps(OPENAI_COSTS), "openai", Line(DAY, MINI, cost_usd=Decimal("0.06"))),
        (orjson.dumps(ANTHROPIC_USAGE), "anthropic", Line(DAY, HAIKU, 3200, 200, 500)),
        (orjson.dumps(ANTHROPIC_COSTS), "anthropic", Line(DAY, "claude-haiku-4-5", cost_usd=Decimal("1.2345"))),
        (OPENAI_USAGE_CSV.encode(), "openai", Line(DAY, MINI, 1000, 800, 500)),
        (OPENAI_COSTS_CSV.encode(), "openai", Line(DAY, "gpt-5-mini", cost_usd=Decimal("0.06"))),
        (ANTHROPIC_USAGE_CSV.encode(), "anthropic", Line(DAY, HAIKU, 3200, 200, 500)),
        (ANTHROPIC_COSTS_CSV.encode(), "anthropic", Line(DAY, "Claude Haiku 4.5", cost_usd=Decimal("1.23"))),
        (b"date,model,input_tokens,cost_usd\n2026-03-10,m,7,\n", None, Line(DAY, "m", 7)),
    ],
)
def test_each_export_is_read(raw: bytes, vendor: str | None, line: Line) -> None:
    assert read(raw) == Export(vendor, (line,))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "columns that are not known"),
        (b"a,b\n1,2\n", "columns that are not known: a, b"),
        (b"\xff\xfe", "not UTF-8"),
        (b"date,model,input_tokens\n", "no usage in it"),
        (b"date,model,input_tokens\n2026-03-10,m,1\nsoon,m,1\n", "line 3 of the export"),
        (b"date,model,input_tokens\n2026-03-10,m,1.5\n", "'1.5' is not a number of tokens"),
        (b"date,model,input_tokens\n2026-03-10,m,-1\n", "'-1' is not a number of tokens"),
        (b"date,model,cost_usd\n2026-03-10,m,NaN\n", "'NaN' is not an amount"),
        (OPENAI_COSTS_CSV.replace("usd,1000", "eur,1000").encode(), "eur, not in USD"),
        (b"{", "not a page"),
        (b"[]", "no usage in it"),
        (b'{"data": [{"results": [{}]}]}', "not a page"),
        (orjson.dumps(OPENAI_USAGE | {"has_more": True}), "not whole"),
        (orjson.dumps([OPENAI_USAGE, ANTHROPIC_USAGE]), "more than one vendor"),
    ],
)
def test_what_is_no_export_is_said(raw: bytes, words: str) -> None:
    with pytest.raises(CliError, match=words):
        read(raw)


def test_a_model_has_one_name_on_both_sides() -> None:
    for name in (HAIKU, "claude-haiku-4-5", "Claude Haiku 4.5"):
        assert canonical(name) == "claude-haiku-4-5"
    assert canonical("Claude 3.5 Sonnet 2024-10-22") == canonical("claude-3-5-sonnet-20241022") == "claude-3-5-sonnet"
    assert canonical(MINI) == "gpt-5-mini"
    assert canonical("gpt-4.1") == "gpt-4.1"


def ours(model: str = MINI, **values: Any) -> dict[str, Any]:
    return {
        "date": "2026-03-10", "provider": "p", "kind": "openai", "model": model, "input_tokens": 1000,
        "cached_tokens": 800, "output_tokens": 500, "cost_usd": "0.06", "unpriced": 0, "estimated": 0, **values,
    }  # fmt: skip


def differing(export: Export, rows: list[dict[str, Any]], tolerance: str = "1", **options: Any) -> list[str]:
    found = compared(export, rows, provider=options.get("provider"), tolerance=Decimal(tolerance))
    assert within(found) == all(one.within for one in found)
    return [f"{one.model} {one.what} {one.ours} {one.theirs}" for one in found if not one.within]


def test_only_what_the_export_states_is_compared() -> None:
    export = read(orjson.dumps(OPENAI_USAGE))
    assert differing(export, [ours(cost_usd="99")]) == []
    assert differing(export, [ours(output_tokens=505)]) == []
    assert differing(export, [ours(output_tokens=506)]) == ["gpt-5-mini output_tokens 506 500"]
    assert differing(export, [ours(output_tokens=506)], "2") == []
    assert differing(export, [ours(output_tokens=494, cached_tokens=None)]) == [
        "gpt-5-mini cached_tokens 0 800",
        "gpt-5-mini output_tokens 494 500",
    ]


def test_what_only_one_side_has_differs() -> None:
    export = Export("openai", (Line(DAY, "a", 5),))
    assert differing(export, [ours("b")]) == ["a input_tokens 0 5", "b input_tokens 1000 0"]


def test_the_providers_of_the_vendor_count() -> None:
    export = read(orjson.dumps(OPENAI_USAGE))
    rows = [ours(), ours(kind="anthropic", provider="q")]
    assert differing(export, rows) == []
    assert len(differing(export, rows, provider="r")) == 3
    assert differing(export, rows, provider="q") == []
    assert len(differing(Export(None, export.lines), rows)) == 3


def test_without_models_all_are_added_up_and_cents_are_not_counted() -> None:
    export = Export("openai", (Line(DAY, "", cost_usd=Decimal("0.125")),))
    assert differing(export, [ours(), ours("b")]) == []
    assert differing(export, [ours(), ours("b"), ours("c")]) == [" cost_usd 0.18 0.125"]


def test_many_days_are_asked_for_in_stretches() -> None:
    export = Export(None, (Line(date(2026, 1, 1), "a", 1), Line(date(2026, 2, 5), "a", 1)))
    assert list(days_of(export)) == [
        (date(2026, 1, 1), date(2026, 1, 31)),
        (date(2026, 2, 1), date(2026, 2, 5)),
    ]
    with pytest.raises(CliError, match="compare at most"):
        list(days_of(Export(None, (Line(date(2020, 1, 1), "a", 1), Line(DAY, "a", 1)))))
