"""Reading a request: its body as JSON, its jobs as `NewJob`s, its options; every fault in one 400."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
from aiohttp import web
from pydantic import ValidationError

from gateway_api.submit import IdempotencyKey, request_hash
from shared import catalog, ids, routing, webhook_url
from shared.config import Config, capabilities_of
from shared.db.jobs import NewJob
from shared.errors import ApiError, Fault
from shared.providers import Call
from shared.routing import Target
from shared.schemas import DEFAULT_ROUTE, MOST_FAULTS, ROUTES, JobRequest, body_faults, faults_of, null_characters
from shared.serving import serving

BYTES_PER_TOKEN = 4
MOST_TOKENS = 10**9
READ_SECONDS = 60
LONGEST_WAIT = 60


async def body_bytes(request: web.Request) -> bytes:
    """Return the body. Raises ApiError: 408 for one that does not arrive; aiohttp's 413 for one over the limit."""
    if request.content.is_eof():  # it has arrived whole, with its head
        return await request.read()
    try:
        async with asyncio.timeout(READ_SECONDS):
            return await request.read()
    except TimeoutError:
        raise ApiError(408, f"The body did not arrive within {READ_SECONDS} seconds.") from None
    except web.RequestPayloadError:
        raise ApiError(400, "The body is not what its Content-Encoding or Content-Length says.") from None


def json_object(raw: bytes) -> dict[str, Any]:
    """Return a body that must be a JSON object. Raises ApiError 400."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"The body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, "The body must be a JSON object.", code="invalid_json")
    try:
        faults = null_characters(value) if b"\\u0000" in raw else []
    except RecursionError:
        raise ApiError(400, "The body is nested too deeply.", code="invalid_json") from None
    if faults:
        raise refusal(faults)
    return value


def refusal(faults: Sequence[Fault]) -> ApiError:
    """Return the 400 that lists every fault (a 404 where all there is to say is that a model is unknown)."""
    listed = faults[:MOST_FAULTS]
    message = "; ".join(f"{fault.param}: {fault.message}" if fault.param else fault.message for fault in listed)
    if len(faults) > len(listed):
        message += f"; and {len(faults) - len(listed)} more"
    codes = {fault.code for fault in faults}
    code = codes.pop() if len(codes) == 1 else "invalid_request"
    return ApiError(
        404 if code == "model_not_found" else 400,
        message,
        code=code,
        param=faults[0].param or None,
        faults=tuple(listed),
    )


def new_job(
    value: object, config: Config, *, tenant: str, batch: UUID | None = None, prefix: str = ""
) -> NewJob | list[Fault]:
    """Return the job that a request's JSON describes, or all that is wrong with it, with params under `prefix`."""
    faults: list[Fault] = []
    asked = target = body = None
    try:
        asked = JobRequest.model_validate(value)
        body = orjson.dumps(asked.body)
    except ValidationError as error:
        faults += faults_of(error)
    except TypeError as error:
        faults.append(Fault("body", str(error)))
    if isinstance(value, dict):
        target, found = _examined(value, config)
        faults += found
    if faults or asked is None or target is None or body is None:
        return [replace(fault, param=f"{prefix}.{fault.param}".strip(".")) for fault in faults]
    now = datetime.now(UTC)
    return NewJob(
        id=ids.new_id(),
        tenant_id=tenant,
        batch_id=batch,
        custom_id=asked.custom_id,
        url=asked.url,
        model=asked.body["model"],
        provider=target.provider,
        upstream_model=target.model,
        priority=asked.priority.value,
        created_at=now,
        run_at=max(asked.run_at or now, now),  # a time in the past is no way to the head of the queue
        deadline=asked.deadline,
        metadata=asked.metadata,
        webhook=asked.webhook.model_dump() if asked.webhook else None,
        body=body,
        input_estimate=len(body) // BYTES_PER_TOKEN,
        output_estimate=_allowed_output(asked.body),
    )


def _allowed_output(body: dict[str, Any]) -> int:
    for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
        value = body.get(name)
        if isinstance(value, int) and 0 < value <= MOST_TOKENS:
            return value
    return 0


def drop_unsupported(value: dict[str, Any], config: Config) -> list[str]:
    """Take out of a job's request what its vendor cannot do, where its body says `drop_unsupported`; return the names.

    Only whole parameters can be dropped: what remains is a fault.
    """
    body = value.get("body")
    if not isinstance(body, dict) or body.pop("drop_unsupported", False) is not True:
        return []
    url = str(value.get("url", DEFAULT_ROUTE))
    target = None if body_faults(url, body) else routing.resolve(body["model"], config.providers, config.models)
    names = {fault.param.removeprefix("body.") for fault in _unsupported(target, url, body, config)}
    dropped = sorted(names & body.keys())
    for name in dropped:
        del body[name]
    return dropped


def dropped_header(dropped: Sequence[str]) -> dict[str, str]:
    """Return the header that names what was dropped."""
    return {"x-sluice-dropped": ", ".join(dropped)} if dropped else {}


def of_body(fault: Fault) -> Fault:
    """Return a fault of a job's body as one of a request that is this body."""
    return replace(fault, param=fault.param.removeprefix("body."))


def _unsupported(target: Target | None, url: str, body: dict[str, Any], config: Config) -> list[Fault]:
    if target is None or url not in ROUTES:
        return []
    provider = config.providers[target.provider]
    faults = serving(provider.kind, url).faults(Call(url, body, "", target.model))
    needed = [] if faults else catalog.needs(body)
    if needed and (known := capabilities_of(provider, target.model)):
        faults = catalog.lacking(known, needed)
    return faults


def _examined(value: dict[str, Any], config: Config) -> tuple[Target | None, list[Fault]]:
    """Return where a request's JSON goes, and what is wrong with its body and its webhook besides their shape."""
    faults: list[Fault] = []
    target = None
    body, webhook = value.get("body"), value.get("webhook")
    if isinstance(body, dict):
        url = str(value.get("url", DEFAULT_ROUTE))
        faults += body_faults(url, body)
        if not any(fault.param == "body.model" for fault in faults):
            target = routing.resolve(body["model"], config.providers, config.models)
            if target is None:
                name = body["model"]
                faults.append(Fault("body.model", f"the model {name!r} is not served here", "model_not_found"))
        if not faults:
            faults += _unsupported(target, url, body, config)
    if isinstance(webhook, dict) and isinstance(webhook.get("url"), str):
        wrong = webhook_url.fault(
            webhook["url"],
            allow_http=config.webhooks.allow_http,
            allowed=config.webhooks.allow_private_networks,
        )
        if wrong:
            faults.append(Fault("webhook.url", wrong))
    return target, faults


def idempotency_key(request: web.Request, raw: bytes) -> IdempotencyKey | None:
    """Return the request's `Idempotency-Key`, if any. Raises ApiError 400 for one that is no key."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not 1 <= len(key) <= 255 or not key.isprintable():
        raise ApiError(400, "Idempotency-Key must be 1 to 255 printable characters.", param="Idempotency-Key")
    return IdempotencyKey(key, request_hash(request.path, raw))


def wait_seconds(request: web.Request) -> float:
    """Return how long the caller wants the answer held: `?wait=N`, or `Prefer: wait=N` (RFC 7240); at most 60."""
    text = request.query.get("wait")
    if text is None:
        for name, value in _preferences(request):
            if name == "wait":
                text = value
    if text is None:
        return 0.0
    try:
        return float(min(max(int(text), 0), LONGEST_WAIT))
    except ValueError:
        raise ApiError(400, "wait must be a whole number of seconds.", param="wait") from None


def respond_async(request: web.Request) -> bool:
    """Tell whether the caller prefers 202 and the job to waiting for the answer (RFC 7240)."""
    return "respond-async" in (name for name, _ in _preferences(request))


def _preferences(request: web.Request) -> Iterator[tuple[str, str]]:
    for preference in ",".join(request.headers.getall("Prefer", ())).split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        yield name.strip().lower(), value.strip(' "')


def limit(request: web.Request, *, default: int = 20, most: int = 100) -> int:
    """Return the query's `limit`. Raises ApiError 400."""
    text = request.query.get("limit", str(default))
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= most:
        raise ApiError(400, f"limit must be a whole number from 1 to {most}.", param="limit")
    return int(text)


def id_of(prefix: ids.Prefix, text: str, *, param: str) -> UUID:
    """Return an id in a query or a filter. Raises ApiError 400."""
    found = ids.parse(prefix, text)
    if found is None:
        raise ApiError(400, f"{param} is not the id of a {prefix}.", param=param)
    return found


def path_id(request: web.Request, prefix: ids.Prefix) -> UUID:
    """Return the id in a path. Raises ApiError 404, as for one that does not exist."""
    found = ids.parse(prefix, request.match_info["id"])
    if found is None:
        raise not_found(prefix, request.match_info["id"])
    return found


def not_found(prefix: ids.Prefix, text: str) -> ApiError:
    """Return the 404 for an id that is not there, or not the tenant's."""
    return ApiError(404, f"No such {prefix}: {text[:100]!r}.", code=f"{prefix}_not_found")
