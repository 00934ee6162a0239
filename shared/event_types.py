"""What webhooks tell of, by the names that endpoints subscribe to."""

from typing import Literal, get_args

EventType = Literal[
    "job.completed",
    "job.failed",
    "job.cancelled",
    "job.expired",
    "batch.completed",
    "batch.failed",
    "batch.expired",
    "batch.cancelled",
    "response.completed",
    "response.failed",
    "response.cancelled",
    "response.incomplete",
    "budget.threshold_crossed",
    "budget.exhausted",
    "webhook_endpoint.disabled",
]

EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)
