from types import SimpleNamespace
from typing import Any

import pytest

from shared.routing import Target, parse, resolve

OPEN = SimpleNamespace(models={}, serves=lambda _: False)
LISTS = SimpleNamespace(models={"gpt-5-mini": None, "org/model": None}, serves=lambda _: True)
MODELS = {"fast": SimpleNamespace(targets=("openai/gpt-5-mini",))}


@pytest.mark.parametrize(
    ("model", "target"),
    [
        ("fast", Target("openai", "gpt-5-mini")),
        ("openai/anything", Target("openai", "anything")),
        ("local/a/b/c", Target("local", "a/b/c")),
        ("gpt-5-mini", Target("openai", "gpt-5-mini")),
        ("org/model", Target("openai", "org/model")),
        ("nobody", None),
        ("openai/", None),
        ("", None),
    ],
)
def test_resolve(model: str, target: Target | None) -> None:
    providers: dict[str, Any] = {"openai": LISTS, "local": OPEN}
    assert resolve(model, providers, MODELS) == target


def test_a_lone_provider_that_lists_nothing_takes_any_name() -> None:
    assert resolve("whatever", {"local": OPEN}, {}) == Target("local", "whatever")
    assert resolve("whatever", {"openai": LISTS}, {}) is None
    assert resolve("", {"local": OPEN}, {}) is None


def test_of_several_that_list_nothing_the_vendor_that_has_the_model_serves_it() -> None:
    some = SimpleNamespace(models={}, serves=lambda model: model.startswith("claude"))
    all_ = SimpleNamespace(models={}, serves=lambda _: True)
    providers: dict[str, Any] = {"lists": LISTS, "local": OPEN, "some": some, "all": all_}
    assert resolve("claude-x", providers, {}) == Target("some", "claude-x")
    assert resolve("other", providers, {}) == Target("all", "other")
    assert resolve("gpt-5-mini", providers, {}) == Target("lists", "gpt-5-mini")
    assert resolve("", providers, {}) is None
    assert resolve("other", {"lists": LISTS, "local": OPEN}, {}) is None


@pytest.mark.parametrize("wrong", ["", "x", "/x", "x/"])
def test_what_is_no_target(wrong: str) -> None:
    with pytest.raises(ValueError, match="not provider/model"):
        parse(wrong)
