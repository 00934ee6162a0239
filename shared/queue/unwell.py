"""Keys that are out, or with which a circuit is open, for who asks their providers after them: `workers/probe.py`."""

from typing import NamedTuple

from shared.queue import Queue


class Unwell(NamedTuple):
    """A key that is not well: its name, the mark of its value, and when that was (ms)."""

    key: str
    mark: str
    at: float


async def unwell(
    queue: Queue, provider: str, *, limits: bytes, look: float, every: float, said: tuple[Unwell, bool] | None = None
) -> list[Unwell]:
    """Return the keys to ask a provider after, each once in `every` seconds, or note what it `said` of one.

    Of all who look, one is told something in `look` seconds. A key that is well is tried by the next job at once; one
    that is refused stays out for longer. `limits` is from `deployments_json`.
    """
    note = () if said is None else (*said[0], "well" if said[1] else "refused")
    found = await queue._run("probe", provider, limits, int(look * 1000), int(every * 1000), *note)
    return [Unwell(key.decode(), mark.decode(), float(at)) for key, mark, at in found]
