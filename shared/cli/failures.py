"""Why jobs of a submission failed, read from its results file: an earlier run may have written a part of it."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import orjson


@dataclass(frozen=True, slots=True)
class Failure:
    """An error, the first message that came with it, and how many jobs ended with it."""

    code: str
    message: str
    jobs: int


def commonest(results: Path) -> Failure | None:
    """Return the error that most jobs ended with, None where none did. A job's last line counts: it may have run again.

    Errors are told apart by their codes, since messages may name the job or the moment.
    """
    codes: dict[str, str] = {}
    messages: dict[str, str] = {}
    with results.open("rb") as file:
        for raw in file:
            line = orjson.loads(raw)
            error = line["error"]
            if error is None:
                codes.pop(line["custom_id"], None)
            else:
                code = codes[line["custom_id"]] = str(error["code"])
                messages.setdefault(code, str(error["message"]))
    if not codes:
        return None
    code, jobs = Counter(codes.values()).most_common(1)[0]
    return Failure(code, messages[code], jobs)
