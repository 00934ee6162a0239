from types import SimpleNamespace
from typing import Any

import pytest

from shared.routing import Target, parse, resolve

OPEN = SimpleNamespace(models={})
LISTS = SimpleNamespace(models={"gpt-5-mini": None, "org/model": None})
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


@pytest.mark.parametrize("wrong", ["", "x", "/x", "x/"])
def test_what_is_no_target(wrong: str) -> None:
    with pytest.raises(ValueError, match="not provider/model"):
        parse(wrong)
