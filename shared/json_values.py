"""JSON that nobody has checked, read without minding: what is not of the kind that it should be counts as empty."""

from typing import Any


def mapping(value: Any) -> dict[str, Any]:
    """Return a value that should be an object, an empty one for what is none."""
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    """Return a value that should be a list, an empty one for what is none."""
    return value if isinstance(value, list) else []


def text(value: Any) -> str:
    """Return a value that should be a string, an empty one for what is none."""
    return value if isinstance(value, str) else ""


def first_choice(completion: dict[str, Any]) -> dict[str, Any]:
    """Return the first choice of a chat completion, for what holds one answer."""
    return mapping(next(iter(sequence(completion.get("choices"))), None))
