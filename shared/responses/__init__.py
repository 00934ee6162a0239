"""OpenAI's Responses over chat completions, for vendors that have no Responses of their own. Pure.

`request` and `items` make a chat completion of a response's request and say what chat cannot hold, `answer` makes a
response of the completion, and `stream` the events of one from the completion's chunks. Nothing is stored here: what
refers to an earlier response is a fault.
"""

from shared.responses.answer import from_chat
from shared.responses.request import faults, to_chat
from shared.responses.stream import ChatToResponseEvents

Events = ChatToResponseEvents

__all__ = ["ChatToResponseEvents", "Events", "faults", "from_chat", "to_chat"]
