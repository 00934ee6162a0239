"""Anthropic's Messages over chat completions, for vendors that do not speak it themselves. Pure.

`request` and `turns` make a chat completion of a message's request and say what chat cannot hold, `answer` makes a
message of the completion, and `stream` the events of one from the completion's chunks.
"""

from shared.messages.answer import from_chat
from shared.messages.request import BETA, as_asked, faults, fetched, to_chat
from shared.messages.stream import ChatToMessageEvents, as_events

Events = ChatToMessageEvents

__all__ = [
    "BETA",
    "ChatToMessageEvents",
    "Events",
    "as_asked",
    "as_events",
    "faults",
    "fetched",
    "from_chat",
    "to_chat",
]
