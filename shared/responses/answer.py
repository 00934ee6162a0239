"""A chat completion as a response, whole, in the shape in which OpenAI's SDK reads it."""

from typing import Any

from shared.json_values import first_choice, mapping, sequence, text

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_TIERS = frozenset({"auto", "default", "flex", "scale", "priority", "fast", "ultrafast"})
_ECHOED = (
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "prompt_cache_key",
    "safety_identifier",
    "temperature",
    "top_logprobs",
    "top_p",
    "user",
)


def from_chat(completion: dict[str, Any], body: dict[str, Any], *, id: str, created: int) -> dict[str, Any]:
    """Return the response that a chat completion is; `body` is the response's request, `created` in Unix seconds."""
    choice = first_choice(completion)
    reason = _INCOMPLETE.get(text(choice.get("finish_reason")))
    return shell(body, id=id, created=created, model=text(completion.get("model"))) | {
        "status": "incomplete" if reason else "completed",
        "incomplete_details": {"reason": reason} if reason else None,
        "output": _output(choice, id, "incomplete" if reason else "completed"),
        "usage": _usage(mapping(completion.get("usage"))),
        "service_tier": _tier(completion.get("service_tier") or body.get("service_tier")),
    }


def shell(body: dict[str, Any], *, id: str, created: int, model: str) -> dict[str, Any]:
    """Return a response that has only begun: what was asked, and nothing of the answer."""
    tool_calls_at_once = body.get("parallel_tool_calls")
    reasoning = mapping(body.get("reasoning"))
    return {
        **kept(body, id=id),
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "model": model or text(body.get("model")),
        "output": [],
        "usage": None,
        **{name: body.get(name) for name in _ECHOED},
        "metadata": body.get("metadata") or {},
        "parallel_tool_calls": True if tool_calls_at_once is None else tool_calls_at_once,
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "service_tier": _tier(body.get("service_tier")),
        "text": {"format": {"type": "text"}} | {k: v for k, v in mapping(body.get("text")).items() if v is not None},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "truncation": "disabled",
    }


def kept(body: dict[str, Any], *, id: str) -> dict[str, Any]:
    """Return what a response says of how it is kept here, whoever made it."""
    return {
        "id": id,
        "background": body.get("background") is True,
        "previous_response_id": body.get("previous_response_id"),
        "store": body.get("store") is not False,
    }


def reasoning_item(id: str, summary: list[dict[str, Any]], status: str) -> dict[str, Any]:
    """Return an output item of reasoning."""
    return {"id": f"rs_{_own(id)}", "type": "reasoning", "summary": summary, "status": status}


def message_item(id: str, parts: list[dict[str, Any]], status: str) -> dict[str, Any]:
    """Return an output item of what the assistant said."""
    return {"id": f"msg_{_own(id)}", "type": "message", "role": "assistant", "status": status, "content": parts}


def call_item(id: str, number: int, call: dict[str, Any], status: str, *, arguments: str = "") -> dict[str, Any]:
    """Return an output item of the tool call that is the `number`th of its response."""
    return {
        "id": f"fc_{_own(id)}_{number}",
        "type": "function_call",
        "call_id": text(call.get("id")) or f"call_{_own(id)}_{number}",
        "name": text(mapping(call.get("function")).get("name")),
        "arguments": arguments,
        "status": status,
    }


def summary_part(thought: str) -> dict[str, Any]:
    """Return the part that a reasoning's summary has."""
    return {"type": "summary_text", "text": thought}


def text_part(said: str, annotations: Any = None, logprobs: Any = None) -> dict[str, Any]:
    """Return a message's text; `annotations` and `logprobs` are chat's."""
    cited = [mapping(mapping(one).get("url_citation")) for one in sequence(annotations)]
    return {
        "type": "output_text",
        "text": said,
        "annotations": [
            {"type": "url_citation", "url": "", "title": "", "start_index": 0, "end_index": 0} | one
            for one in cited
            if one
        ],
        "logprobs": token_logprobs(logprobs),
    }


def refusal_part(said: str) -> dict[str, Any]:
    """Return a message's refusal."""
    return {"type": "refusal", "refusal": said}


def token_logprobs(given: Any) -> list[dict[str, Any]]:
    """Return the log probabilities of chat's `logprobs` object, each with the bytes that a response's must have."""
    return [
        _logprob(token) | {"top_logprobs": [_logprob(one) for one in sequence(token.get("top_logprobs"))]}
        for token in sequence(mapping(given).get("content"))
        if isinstance(token, dict)
    ]


def _output(choice: dict[str, Any], id: str, ended: str) -> list[dict[str, Any]]:
    message = mapping(choice.get("message"))
    items = []
    if thought := text(message.get("reasoning_content")):
        items.append(reasoning_item(id, [summary_part(thought)], "completed"))
    parts = []
    if said := text(message.get("content")):
        parts.append(text_part(said, message.get("annotations"), choice.get("logprobs")))
    if refused := text(message.get("refusal")):
        parts.append(refusal_part(refused))
    calls = [call for call in sequence(message.get("tool_calls")) if isinstance(call, dict)]
    if not items and not parts and not calls:
        parts.append(text_part(""))  # an answer has something in it, be it nothing
    if parts:
        items.append(message_item(id, parts, "completed"))
    for number, call in enumerate(calls):
        arguments = text(mapping(call.get("function")).get("arguments"))
        items.append(call_item(id, number, call, "completed", arguments=arguments))
    items[-1]["status"] = ended  # what was cut off is the last
    return items


def _usage(given: dict[str, Any]) -> dict[str, Any] | None:
    if not given:
        return None
    of_input, of_output = given.get("prompt_tokens_details"), given.get("completion_tokens_details")
    asked, answered = _count(given, "prompt_tokens"), _count(given, "completion_tokens")
    return {
        "input_tokens": asked,
        "input_tokens_details": {
            "cached_tokens": _count(of_input, "cached_tokens"),
            "cache_write_tokens": _count(of_input, "cache_write_tokens"),
        },
        "output_tokens": answered,
        "output_tokens_details": {"reasoning_tokens": _count(of_output, "reasoning_tokens")},
        "total_tokens": asked + answered,
    }


def _count(given: Any, name: str) -> int:
    value = mapping(given).get(name)
    return value if isinstance(value, int) else 0


def _tier(given: Any) -> str | None:
    """Return a service tier that OpenAI has too; the SDK knows no other."""
    return given if isinstance(given, str) and given in _TIERS else None


def _logprob(token: Any) -> dict[str, Any]:
    said = text(mapping(token).get("token"))
    spelled = mapping(token).get("bytes")
    value = mapping(token).get("logprob")
    return {
        "token": said,
        "bytes": spelled if isinstance(spelled, list) else list(said.encode(errors="replace")),
        "logprob": value if isinstance(value, int | float) else 0.0,
    }


def _own(id: str) -> str:
    """Return what tells a response's id from others'."""
    return id.removeprefix("resp_")
