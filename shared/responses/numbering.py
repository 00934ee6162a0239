"""The sequence numbers of a response's events: each attempt at the answer numbers its events in a range of its own.

So a number says which attempt its reader has heard: where another has answered since, what the reader has is void. The
first event of any attempt, `response.created`, says nothing of the answer and is always 0.
"""

from typing import Any

PER_ATTEMPT = 1_000_000
"""More than an answer has events."""


def numbered(event: dict[str, Any], attempt: int, number: int) -> dict[str, Any]:
    """Return the `number`th event of an attempt with the sequence number that it has for readers."""
    return event | {"sequence_number": (attempt - 1) * PER_ATTEMPT + number if number else 0}


def attempt_of(sequence_number: int) -> int:
    """Return whose event has a sequence number; 0 for what comes before any answer."""
    return (sequence_number // PER_ATTEMPT) + 1 if sequence_number > 0 else 0


def before(attempt: int) -> int:
    """Return the sequence number that the first event of an attempt's answer follows."""
    return (attempt - 1) * PER_ATTEMPT


def closes(event: dict[str, Any]) -> bool:
    """Tell whether an event is the last of an answer."""
    return event.get("type") in ("response.completed", "response.incomplete")
