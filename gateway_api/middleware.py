"""What happens to every request: an id, who asks, and every error in one envelope."""

import hashlib
import hmac
import itertools
import re

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway_api.answers import envelope
from gateway_api.routes import OPEN
from gateway_api.state import REQUEST_ID, TENANT
from shared import ids
from shared.errors import ApiError

log = structlog.get_logger(__name__)

DEFAULT_TENANT = "default"
_TENANT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def guard(admin_key: str) -> Middleware:
    """Return the middleware. `admin_key` is the credential that may act in any tenant."""
    digest = hashlib.sha256(admin_key.encode()).digest()
    process, count = ids.new_id().hex[8:20], itertools.count(1)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        request_id = request[REQUEST_ID] = f"req_{process}{next(count):x}"
        try:
            if request.path not in OPEN:
                request[TENANT] = _tenant(request, digest)
            response = await handler(request)
        except ApiError as error:
            response = envelope(error)
        except web.HTTPException as error:
            response = envelope(_of_http(error))
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
        except ConnectionResetError:
            if request.transport is not None and not request.transport.is_closing():
                raise
            return web.Response(status=499)  # the client has left, and reads this no more
        except Exception:
            log.exception("request.crashed", request=request_id, method=request.method, path=request.path)
            response = envelope(
                ApiError(500, "Something went wrong on our side.", type="server_error", code="internal")
            )
        if not response.prepared:
            response.headers["x-request-id"] = request_id
        if response.status >= 500:
            log.warning("request.refused", request=request_id, path=request.path, status=response.status)
        return response

    return middleware


def _tenant(request: web.Request, digest: bytes) -> str:
    """Return the tenant that a request acts in. Raises ApiError 401, 400."""
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise ApiError(
            401, "Send your key as `Authorization: Bearer <key>`.", type="authentication_error", code="missing_api_key"
        )
    if not hmac.compare_digest(hashlib.sha256(key.strip().encode(errors="surrogateescape")).digest(), digest):
        raise ApiError(401, "This key is not valid.", type="authentication_error", code="invalid_api_key")
    tenant = request.headers.get("X-Sluice-Tenant", DEFAULT_TENANT)
    if not _TENANT_NAME.fullmatch(tenant):
        raise ApiError(400, "X-Sluice-Tenant must match [a-z0-9][a-z0-9_-]{0,62}.", param="X-Sluice-Tenant")
    return tenant


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
