"""How long a request lets its answer be: only by the name that its route reads."""

from typing import Any

import pytest

from shared.schemas import allowed_output

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"


@pytest.mark.parametrize(
    ("url", "body", "tokens"),
    [
        (CHAT, {"max_tokens": 5}, 5),
        (CHAT, {"max_tokens": 5, "max_completion_tokens": 7}, 7),
        (CHAT, {"max_output_tokens": 5}, 0),
        (CHAT, {"max_tokens": True}, 0),
        (CHAT, {"max_tokens": -1}, 0),
        (CHAT, {"inferenceConfig": {"maxTokens": 9}}, 9),
        (CHAT, {"generationConfig": {"maxOutputTokens": 9}}, 9),
        (CHAT, {"generationConfig": 9}, 0),
        (RESPONSES, {"max_output_tokens": 5}, 5),
        (RESPONSES, {"max_tokens": 5}, 0),
        (RESPONSES, {}, 0),
        (MESSAGES, {"max_tokens": 5, "max_completion_tokens": 7}, 5),
    ],
)
def test_only_what_is_read_counts(url: str, body: dict[str, Any], tokens: int) -> None:
    assert allowed_output(url, body) == tokens
