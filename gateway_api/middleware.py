"""What happens to every request: an id, who asks and whether it may, and every error in one envelope.

URLs are not logged: a route is logged by its pattern.
"""

import itertools

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway_api import access
from gateway_api.answers import envelope
from gateway_api.auth import Callers
from gateway_api.state import CALLER, REQUEST_ID, TENANT, request_headers
from shared import ids
from shared.errors import ApiError

log = structlog.get_logger(__name__)


def guard(callers: Callers) -> Middleware:
    """Return the middleware."""
    process, count = ids.new_id().hex[8:20], itertools.count(1)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        request_id = request[REQUEST_ID] = f"req_{process}{next(count):x}"
        try:
            callers.check_url(request)
            need = access.needed(request)
            if need != "nothing":
                caller = request[CALLER] = await callers.of(request)
                request[TENANT] = caller.tenant
                access.check(need, caller)
            response = await handler(request)
        except ApiError as error:
            response = envelope(error, request)
        except web.HTTPException as error:
            response = envelope(_of_http(error), request)
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
        except ConnectionResetError:
            if request.transport is not None and not request.transport.is_closing():
                raise
            return web.Response(status=499)  # the client has left, and reads this no more
        except Exception:
            log.exception("request.crashed", request=request_id, method=request.method, route=_route(request))
            response = envelope(
                ApiError(500, "Something went wrong on our side.", type="server_error", code="internal"), request
            )
        if not response.prepared:
            response.headers.update(request_headers(request))
        if response.status >= 500:
            log.warning("request.refused", request=request_id, route=_route(request), status=response.status)
        return response

    return middleware


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "none"


def _of_http(error: web.HTTPException) -> ApiError:
    match error.status:
        case 404:
            return ApiError(404, "There is no such route.", code="route_not_found")
        case 405:
            return ApiError(405, "This route does not take that method.", code="method_not_allowed")
        case 413:
            return ApiError(413, f"The body is too large: {error.text}", code="body_too_large")
        case status:
            return ApiError(status, error.reason)
