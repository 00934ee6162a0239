"""A job's events as they happen: its states, and the chunks of a streamed answer."""

from typing import Any

from aiohttp import web

from gateway_api import reading
from gateway_api.following import Missing, Restarted, Stand, follow
from gateway_api.sse import EventStream
from gateway_api.state import STATE, TENANT
from shared import public
from shared.errors import ApiError
from shared.lifecycle import Status
from shared.queue.chunks import Piece, Position


async def events(request: web.Request) -> web.StreamResponse:
    """`GET /v1/jobs/{id}/events`.

    | event | data |
    |---|---|
    | `job.queued`, `job.in_progress`, and the end: `job.completed`, `job.failed`, … | the job |
    | `chunk` | a piece of the answer, in OpenAI's shape |
    | `restarted` | `{"attempt"}`: what came before is void, another attempt answers anew |
    | `missing` | `{}`: pieces were lost; the job's result holds them |

    An event's id is `ATTEMPT-N-STATUS`, the status as it was last sent. Sent back as `Last-Event-ID`, the events go on
    after it.
    """
    state, tenant, id_ = request.app[STATE], request[TENANT], reading.path_id(request, "job")
    at, status = _resumed(request.headers.get("Last-Event-ID", ""))
    out = EventStream(request)
    async for step in follow(state, tenant, id_, after=at, status=status):
        shown: Any
        match step:
            case None:
                await out.idle()
                continue
            case Piece(at=at, chunk=shown):
                name = "chunk"
            case Restarted(at=at):
                name, shown = "restarted", {"attempt": at.attempt}
            case Missing():
                name, shown = "missing", {}
            case Stand(row):
                status = row.status
                name, shown = f"job.{status}", public.job(row, row.result)
        await out.send(shown, event=name, id=f"{at}-{status}")
    if not out.begun:
        raise reading.not_found("job", request.match_info["id"])
    return await out.end()


def _resumed(last: str) -> tuple[Position, str]:
    if not last:
        return Position(), ""
    shown, _, status = last.rpartition("-")
    at = Position.parse(shown)
    if at is None or status not in ("", *Status):
        raise ApiError(400, "Last-Event-ID is not the id of one of this job's events.", param="Last-Event-ID")
    return at, status
