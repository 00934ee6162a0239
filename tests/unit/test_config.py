from dataclasses import fields
from datetime import UTC, datetime
from decimal import Decimal
from ipaddress import ip_network
from pathlib import Path

import pytest

from shared import catalog, config, providers, routing
from shared.pricing import Price

ROOT = Path(__file__).parents[2]
GOOD = """\
providers:
  openai:
    kind: openai
    base_url: https://api.example.com/v1/
    keys:
      - {name: main, value: "${KEY}", weight: 2}
      - {name: spare, value: "${SPARE:-}"}
    timeout: 2m
    models:
      small:
        {price: {input: 0.25, output: "2.0", cache_write: 1, reasoning: 3}, context_window: 9000, max_output: "${MOST}",
         tools: false, json_schema: true, vision: false}
      big: {}
models:
  fast: {targets: [openai/small]}
  spread:
    strategy: weighted
    targets: [openai/small, {target: openai/big, weight: 3, canary: 5%, when: {team: search, tags: eu}}]
    fallbacks: [fast, openai/other]
    context_fallbacks: [long]
    content_fallbacks: [openai/big]
  long: {targets: [{target: openai/long}]}
webhooks: {allow_http: true, allow_private_networks: [10.0.0.0/8, "fd00::/8"]}
"""


def load(tmp_path: Path, text: str, **env: str) -> config.Config:
    path = tmp_path / "sluice.yaml"
    path.write_text(text)
    return config.load(path, env)


def test_everything_is_read(tmp_path: Path) -> None:
    found = load(tmp_path, GOOD, KEY="k-1", MOST="100")
    openai = found.providers["openai"]
    assert (openai.kind, openai.base_url, openai.timeout) == ("openai", "https://api.example.com/v1", 120.0)
    assert [(key.name, key.value.get_secret_value(), key.weight) for key in openai.keys] == [("main", "k-1", 2.0)]
    price = openai.models["small"].price
    assert price is not None
    assert (price.input, price.cached_input, price.output) == (Decimal("0.25"), None, Decimal("2.0"))
    assert (price.cache_write, price.reasoning) == (Decimal(1), Decimal(3))
    small = openai.models["small"]
    assert (small.context_window, small.max_output) == (9_000, 100)
    assert (small.tools, small.json_schema, small.vision) == (False, True, False)
    assert openai.models["big"].price is None
    assert found.models["fast"].targets == ("openai/small",)
    fast, spread = found.models["fast"], found.models["spread"]
    assert (fast.strategy, fast.lone, found.models["long"].lone, spread.lone) == ("order", True, True, False)
    assert (spread.strategy, spread.targets) == ("weighted", ("openai/small", "openai/big"))
    small_, big = spread.listed
    assert (small_.weight, small_.canary, small_.when) == (1.0, None, {})
    assert (big.weight, big.canary, big.when) == (3.0, 5.0, {"team": "search", "tags": "eu"})
    chains = (spread.fallbacks, spread.context_fallbacks, spread.content_fallbacks)
    assert chains == (("fast", "openai/other"), ("long",), ("openai/big",))
    assert found.webhooks.allow_http
    assert found.webhooks.allow_private_networks == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert found.source == str(tmp_path / "sluice.yaml")


def test_routing_reads_it(tmp_path: Path) -> None:
    found = load(tmp_path, GOOD, KEY="k-1", MOST="1")
    expected = routing.Target("openai", "small")
    assert routing.resolve("fast", found.providers, found.models) == expected
    assert routing.resolve("small", found.providers, found.models) == expected
    assert routing.resolve("unheard-of", found.providers, found.models) is None


def test_defaults(tmp_path: Path) -> None:
    found = load(tmp_path, "providers: {one: {kind: simulated}}")
    one = found.providers["one"]
    assert (one.base_url, one.keys, one.timeout, one.models) == (None, (), 120.0, {})
    assert found.models == {}
    assert (found.webhooks.allow_http, found.webhooks.allow_private_networks) == (False, ())


def test_the_example_is_good() -> None:
    found = config.load(ROOT / "sluice.example.yaml", {"OPENAI_API_KEY": "k-1"})
    openai = found.providers["openai"]
    assert [(key.name, key.weight) for key in openai.keys] == [("main", 2.0)]
    assert found.providers["rehearsal"].kind == "simulated"
    assert set(found.models) == {"fast", "strong", "rehearsed"}


def test_the_example_shows_every_setting() -> None:
    text = (ROOT / "sluice.example.yaml").read_text()
    shapes = [config.Provider, config.Key, config.UpstreamModel, config.Model, config.ListedTarget, config.Webhooks]
    names = {field.alias or name for shape in shapes for name, field in shape.model_fields.items()}
    names |= {field.name for field in fields(Price)}
    assert {name for name in names if f"{name}:" not in text} == set()


# ------------------------------------------------------------------ without a file


def test_without_a_file_the_environment_is_asked(tmp_path: Path) -> None:
    found = config.load(tmp_path / "none.yaml", {"OPENAI_API_KEY": "k-1"})
    assert list(found.providers) == ["openai"]
    assert found.providers["openai"].keys[0].value.get_secret_value() == "k-1"
    assert found.source == "environment: OPENAI_API_KEY"
    assert routing.resolve("gpt-x", found.providers, found.models) == routing.Target("openai", "gpt-x")


def test_each_key_in_the_environment_makes_a_provider(tmp_path: Path) -> None:
    keys = {"GEMINI_API_KEY": "g", "OPENAI_API_KEY": "o", "ANTHROPIC_API_KEY": "a", "MISTRAL_API_KEY": "m"}
    found = config.load(tmp_path / "none.yaml", keys)
    assert {name: (one.kind, one.keys[0].value.get_secret_value()) for name, one in found.providers.items()} == {
        "openai": ("openai", "o"),
        "anthropic": ("anthropic", "a"),
        "gemini": ("gemini", "g"),
    }
    assert found.source == "environment: OPENAI_API_KEY, ANTHROPIC_API_KEY, GEMINI_API_KEY"
    served = {
        name: str(routing.resolve(name, found.providers, found.models))
        for name in ("gpt-5-mini", "claude-haiku-4-5", "claude-haiku-4-5-20251001", "gemini-2.5-flash", "grok-4")
    }
    assert served == {
        "gpt-5-mini": "openai/gpt-5-mini",
        "claude-haiku-4-5": "anthropic/claude-haiku-4-5",
        "claude-haiku-4-5-20251001": "anthropic/claude-haiku-4-5-20251001",
        "gemini-2.5-flash": "gemini/gemini-2.5-flash",
        "grok-4": "None",
    }


@pytest.mark.parametrize("env", [{}, {"OPENAI_API_KEY": "", "GEMINI_API_KEY": ""}])
def test_with_nothing_at_all_the_simulator_serves_and_says_so(tmp_path: Path, env: dict[str, str]) -> None:
    found = config.load(tmp_path / "none.yaml", env)
    assert {name: one.kind for name, one in found.providers.items()} == {"simulated": "simulated"}
    assert found.source == "simulated: no configuration file and no provider key in the environment"
    assert routing.resolve("any", found.providers, found.models) == routing.Target("simulated", "any")


def test_the_simulators_address_comes_from_who_runs_it(tmp_path: Path) -> None:
    text = "providers: {a: {kind: simulated}, b: {kind: simulated, base_url: 'http://b/v1'}, c: {kind: openai}}"
    found = load(tmp_path, text, SLUICE_SIMULATED_URL="http://s/v1")
    assert {name: one.base_url for name, one in found.providers.items()} == {
        "a": "http://s/v1",
        "b": "http://b/v1",
        "c": None,
    }


# ------------------------------------------------------------------ what models can do, and who has them


def test_a_model_can_do_what_the_catalogue_says_and_what_is_said_of_it(tmp_path: Path) -> None:
    text = """\
providers:
  openai:
    kind: openai
    models:
      gpt-5-mini: {max_output: 1000, tools: false, vision: false, price: {input: 1, output: 1}}
      new: {context_window: 50000, vision: true}
      priced: {price: {input: 1, output: 1}}
"""
    openai = load(tmp_path, text).providers["openai"]
    listed = catalog.capabilities("openai", "gpt-5-mini")
    assert listed is not None
    assert config.capabilities_of(openai, "gpt-5-mini-2025-08-07") == listed
    mini = config.capabilities_of(openai, "gpt-5-mini")
    assert mini is not None
    assert (mini.context_window, mini.max_output, mini.tools) == (listed.context_window, 1_000, False)
    assert mini.json_schema == listed.json_schema
    assert mini.input is not None
    assert "image" not in mini.input
    assert config.capabilities_of(openai, "new") == catalog.Capabilities(
        context_window=50_000, input=frozenset({"text", "image"})
    )
    assert config.capabilities_of(openai, "priced") is None
    assert config.capabilities_of(openai, "unheard-of") is None


@pytest.mark.parametrize(
    ("kind", "base_url", "is_vendor"),
    [
        ("openai", None, True),
        ("openai", "https://api.openai.com/v1", True),
        ("openai", "https://eu.API.openai.com/v1", True),
        ("openai", "https://api.groq.com/openai/v1", False),
        ("openai", "https://openai.com.example.net/v1", False),
        ("openai", "http://127.0.0.1:8000/v1", False),
        ("openai", "http://[::1]:8000/v1", False),
    ],
)
def test_another_server_is_not_the_vendor(kind: str, base_url: str | None, is_vendor: bool) -> None:
    provider = config.Provider(kind=kind, base_url=base_url)
    assert provider.at_vendor is is_vendor
    assert provider.serves("gpt-4o") is is_vendor
    assert (config.capabilities_of(provider, "gpt-4o") is not None) is is_vendor


def test_the_simulator_is_known_to_have_no_model_in_particular() -> None:
    assert not config.Provider(kind="simulated").serves("gpt-4o")
    assert config.capabilities_of(config.Provider(kind="simulated"), "x") == catalog.SIMULATED


def test_a_kind_without_an_address_of_its_own_is_the_vendor_where_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers.adapter("openai"), "DEFAULT_BASE_URL", "")
    assert config.Provider(kind="openai", base_url="https://mine.example.com").at_vendor


# ------------------------------------------------------------------ variables


@pytest.mark.parametrize(
    ("written", "env", "expected"),
    [
        ("${A}", {"A": "x"}, "x"),
        ("a${A}b${B:-y}c", {"A": "x"}, "axbyc"),
        ("${A:-y}", {"A": "x"}, "x"),
        ("${A:-y}", {"A": ""}, "y"),
        ("${A:-http://h:1/-}", {}, "http://h:1/-"),
        ("$${A}", {"A": "x"}, "${A}"),
        ("$$${A}", {"A": "x"}, "$${A}"),
        ("${A}", {"A": "${B}", "B": "never"}, "${B}"),
        ("$A {A} $", {"A": "x"}, "$A {A} $"),
    ],
)
def test_variables_expand(tmp_path: Path, written: str, env: dict[str, str], expected: str) -> None:
    found = load(tmp_path, f"providers: {{o: {{kind: openai, keys: [{{name: n, value: '{written}'}}]}}}}", **env)
    assert found.providers["o"].keys[0].value.get_secret_value() == expected


def test_numbers_and_flags_may_come_from_variables(tmp_path: Path) -> None:
    text = "providers: {s: {kind: simulated, timeout: '${T}'}}\nwebhooks: {allow_http: '${H}'}"
    found = load(tmp_path, text, T="90", H="true")
    assert (found.providers["s"].timeout, found.webhooks.allow_http) == (90.0, True)


@pytest.mark.parametrize("value", ["", "${EMPTY}", "${EMPTY:-}", "${UNSET:-}"])
def test_a_key_that_expands_to_nothing_is_left_out(tmp_path: Path, value: str) -> None:
    text = f"providers: {{o: {{kind: openai, keys: [{{name: a, value: '{value}'}}, {{name: b, value: k}}]}}}}"
    found = load(tmp_path, text, EMPTY="")
    assert [key.name for key in found.providers["o"].keys] == ["b"]


@pytest.mark.parametrize(
    ("written", "seconds"), [("120s", 120), ("2m", 120), ("120", 120), ("500ms", 0.5), ("1.5h", 5400), ("'2m'", 120)]
)
def test_durations(tmp_path: Path, written: str, seconds: float) -> None:
    found = load(tmp_path, f"providers: {{s: {{kind: simulated, timeout: {written}}}}}")
    assert found.providers["s"].timeout == pytest.approx(seconds)


def test_an_alias_is_what_it_stands_for(tmp_path: Path) -> None:
    found = load(tmp_path, "providers:\n  a: &a {kind: simulated, timeout: 5}\n  b: *a")
    assert found.providers["a"] == found.providers["b"]


def test_a_key_is_not_shown(tmp_path: Path) -> None:
    assert "k-1-secret" not in repr(load(tmp_path, GOOD, KEY="k-1-secret", MOST="1"))


@pytest.mark.parametrize(
    ("written", "canary"), [("5%", 5.0), ("'5'", 5.0), ("0.5", 0.5), ("'12.5 %'", 12.5), ("100", 100)]
)
def test_a_canary_is_a_percentage(tmp_path: Path, written: str, canary: float) -> None:
    text = (
        f"providers: {{o: {{kind: simulated}}}}\nmodels: {{m: {{targets: [o/a, {{target: o/b, canary: {written}}}]}}}}"
    )
    assert load(tmp_path, text).models["m"].listed[1].canary == canary


def test_one_target_is_a_choice_where_it_is_not_for_every_job(tmp_path: Path) -> None:
    for written in ("targets: [{target: o/a, when: {k: v}}]", "targets: [o/a], fallbacks: [o/b]"):
        text = f"providers: {{o: {{kind: simulated}}}}\nmodels: {{m: {{{written}}}}}"
        assert not load(tmp_path, text).models["m"].lone


def test_a_price_that_changes_holds_from_its_moment_on(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        "providers: {o: {kind: openai, models: {m: {price: {input: 1, output: 2}, price_changes: ["
        "{from: '2026-03-01T00:00:00Z', price: {input: 3, output: 4}},"
        "{from: '2026-02-01T00:00:00+01:00', price: {input: 5, output: 6}}]}, late: {price_changes: ["
        "{from: '2999-01-01T00:00:00Z', price: {input: 9, output: 9}}]}}}}",
    ).providers["o"]
    held = {
        datetime(2026, 1, 31, 22, 59, 59, tzinfo=UTC): 1,
        datetime(2026, 1, 31, 23, tzinfo=UTC): 5,
        datetime(2026, 3, 1, tzinfo=UTC): 3,
    }
    for moment, dollars in held.items():
        price = found.models["m"].price_at(moment)
        assert price is not None
        assert price.input == dollars
    assert found.models["late"].price_at(datetime(2026, 3, 1, tzinfo=UTC)) is None
    assert config.price_version(found, "m") == "configuration"
    assert config.price_version(found, "late") == config.price_version(found, "gpt-5") != "configuration"
    assert config.cost_of(found, "m", providers.Usage(input=10, output=10)) == 70_000
