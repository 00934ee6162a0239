"""The list of models that a vendor may be asked for: where it is, with which header, and who has none."""

import pytest

from shared import providers
from shared.providers import listing

OWN = ["anthropic", "azure_openai", "cohere", "gemini", "mistral", "openai", "simulated"]


@pytest.mark.parametrize(
    ("kind", "base_url", "url", "header"),
    [
        ("openai", "https://api.openai.com/v1", "https://api.openai.com/v1/models", "authorization: Bearer k"),
        ("groq", "https://h/openai/v1", "https://h/openai/v1/models", "authorization: Bearer k"),
        ("mistral", "https://h/v1", "https://h/v1/models", "authorization: Bearer k"),
        ("anthropic", "https://h/v1", "https://h/v1/models?limit=1", "x-api-key: k"),
        ("gemini", "https://h/v1beta", "https://h/v1beta/models?pageSize=1", "x-goog-api-key: k"),
        ("cohere", "https://h/v2", "https://h/v1/models?page_size=1", "authorization: Bearer k"),
        ("azure_openai", "https://h", "https://h/openai/v1/models", "api-key: k"),
        ("azure_openai", "https://h/openai/v1", "https://h/openai/v1/models", "api-key: k"),
    ],
)
def test_where_it_is(kind: str, base_url: str, url: str, header: str) -> None:
    asked = listing(kind, base_url, "k")
    assert asked is not None
    assert (asked.method, asked.url, asked.body) == ("GET", url, b"")
    assert header in {f"{name}: {value}" for name, value in asked.headers.items()}
    unkeyed = listing(kind, base_url, None)
    assert unkeyed is not None
    assert "k" not in unkeyed.headers.values()


@pytest.mark.parametrize("kind", providers.kinds())
def test_only_where_it_is_known_to_be_free_and_to_need_the_key(kind: str) -> None:
    known = {*OWN, "vllm", "groq", "together", "deepseek", "xai", "moonshot", "cerebras"}
    assert (listing(kind, "https://h", "k") is not None) == (kind in known)
