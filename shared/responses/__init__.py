"""OpenAI's Responses over chat completions, for vendors that have no Responses of their own. Pure.

`request` and `items` make a chat completion of a response's request and say what chat cannot hold, `answer` makes a
response of the completion, and `stream` the events of one from the completion's chunks. For every vendor: `turns`
makes the input of a response that goes on from an earlier one, `numbering` and `replay` let its events be read again.
"""

from shared.responses.answer import from_chat, kept, shell
from shared.responses.numbering import attempt_of, before, closes, numbered
from shared.responses.replay import replay
from shared.responses.request import faults, to_chat
from shared.responses.stream import ChatToResponseEvents
from shared.responses.turns import continued, input_items

__all__ = [
    "ChatToResponseEvents", "attempt_of", "before", "closes", "continued", "faults", "from_chat",
    "input_items", "kept", "numbered", "replay", "shell", "to_chat",
]  # fmt: skip
