"""Reading a request: its body as JSON, its jobs as `NewJob`s, its options; every fault in one 400."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
from aiohttp import web
from pydantic import ValidationError

from gateway_api.access import Caller
from gateway_api.router import BYTES_PER_TOKEN, Asked, Router
from gateway_api.submit import IdempotencyKey, request_hash
from gateway_api.webhook_address import webhook_faults
from shared import ids
from shared.candidates import ANY, Preferences, preferences
from shared.choice import Choice
from shared.db.jobs import NewJob
from shared.errors import ApiError, Fault
from shared.output_schema import schema_faults
from shared.pricing import NANOS
from shared.schemas import (
    DEFAULT_ROUTE,
    MOST_FAULTS,
    JobRequest,
    allowed_output,
    body_faults,
    end_user,
    faults_of,
    null_characters,
)

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


_STATUS = {"model_not_found": 404, "model_not_allowed": 403}


def refusal(faults: Sequence[Fault]) -> ApiError:
    """Return the 400 that lists every fault (404 or 403 where only the model is wrong)."""
    listed = faults[:MOST_FAULTS]
    message = "; ".join(f"{fault.param}: {fault.message}" if fault.param else fault.message for fault in listed)
    if len(faults) > len(listed):
        message += f"; and {len(faults) - len(listed)} more"
    codes = {fault.code for fault in faults}
    code = codes.pop() if len(codes) == 1 else "invalid_request"
    return ApiError(
        _STATUS.get(code, 400),
        message,
        code=code,
        param=faults[0].param or None,
        faults=tuple(listed),
    )


@dataclass(frozen=True, slots=True)
class Read:
    """A job's request that has no faults: its options, its body as it is stored, and what decides where it goes."""

    options: JobRequest
    body: bytes
    asked: Asked
    choice: Choice


def new_job(
    value: object, router: Router, *, caller: Caller, batch: UUID | None = None, prefix: str = ""
) -> NewJob | list[Fault]:
    """Return the job that a request's JSON describes, or all that is wrong with it, with params under `prefix`."""
    now = datetime.now(UTC)  # before the id, which says when it was made: lists are cut by either
    found = read_job(value, router, router.route, caller)
    if isinstance(found, list):
        return [replace(fault, param=f"{prefix}.{fault.param}".strip(".")) for fault in found]
    if batch is None and found.options.depends_on:
        return [Fault("depends_on", "only a line of a batch can wait for others")]
    options, asked, target, route = found.options, found.asked, found.choice.target, found.choice.route
    metadata = options.metadata
    return NewJob(
        id=asked.id,
        tenant_id=caller.tenant,
        batch_id=batch,
        custom_id=options.custom_id,
        url=options.url,
        model=asked.body["model"],
        provider=target.provider,
        upstream_model=target.model,
        priority=options.priority.value,
        created_at=now,
        run_at=max(options.run_at or now, now),  # a time in the past is no way to the head of the queue
        deadline=options.deadline,
        metadata=metadata,
        webhook=options.webhook.model_dump() if options.webhook else None,
        body=found.body,
        input_estimate=asked.input,
        output_estimate=asked.output,
        route=None if route is None else route.stored(),
        key_id=caller.key_id,
        team_id=caller.team_id,
        end_user=end_user(options.url, asked.body),
        max_cost_nanos=None if options.max_cost_usd is None else int(options.max_cost_usd * NANOS),
        tags=[f"{name}={metadata[name]}" for name in router.config.usage.tags if name in metadata] or None,
        waits_for=len(set(options.depends_on)) if options.depends_on else None,
    )


def read_job(
    value: object, router: Router, choose: Callable[[Asked], Choice | list[Fault]], caller: Caller
) -> Read | list[Fault]:
    """Return a job's request as it was read, with where `choose` has it go, or all that is wrong with it."""
    faults: list[Fault] = []
    options = asked = choice = None
    raw = b""
    try:
        options = JobRequest.model_validate(value)
    except ValidationError as error:
        faults += faults_of(error)
    if isinstance(value, dict):
        body = value.get("body")
        if isinstance(body, dict):
            url = str(value.get("url", DEFAULT_ROUTE))
            found = caller.not_allowed(body) or _body_faults(url, body, router)
            preferred = ANY
            if not found and "provider" in body and not router.passes_preferences_on(body["model"]):
                body, preferred = _without_preferences(body, found)
            try:
                raw = orjson.dumps(body)
            except TypeError as error:
                faults.append(Fault("body", str(error)))
            if not found:
                metadata = options.metadata if options else _strings(value.get("metadata"))
                size, output = len(raw) // BYTES_PER_TOKEN, allowed_output(url, body)
                asked = Asked(ids.new_id(), url, body, size, output, metadata, preferred)
                chosen = choose(asked)
                if isinstance(chosen, Choice):
                    choice = chosen
                else:
                    found = chosen
            faults += found
        faults += webhook_faults(value.get("webhook"), router.config, caller)
    if faults or options is None or asked is None or choice is None:
        return faults
    return Read(options, raw, asked, choice)


def _body_faults(url: str, body: dict[str, Any], router: Router) -> list[Fault]:
    faults = body_faults(url, body)
    if router.config.structured_output.check:
        faults += schema_faults(url, body)
    if not any(fault.param == "body.model" for fault in faults) and not router.serves(body["model"]):
        faults.append(Fault("body.model", f"the model {body['model']!r} is not served here", "model_not_found"))
    return faults


def _without_preferences(body: dict[str, Any], faults: list[Fault]) -> tuple[dict[str, Any], Preferences]:
    """Return a body without the caller's preferences of providers, and these; what is wrong goes to `faults`."""
    found = preferences(body["provider"])
    if isinstance(found, list):
        faults += found
        found = ANY
    return {name: value for name, value in body.items() if name != "provider"}, found


def _strings(metadata: object) -> dict[str, str]:
    pairs = metadata.items() if isinstance(metadata, dict) else ()
    return {name: value for name, value in pairs if isinstance(value, str)}


def drop_unsupported(value: dict[str, Any], router: Router) -> list[str]:
    """Take out of a job's request what its vendor cannot do, where its body says `drop_unsupported`; return the names.

    Only whole parameters can be dropped: what remains is a fault. Where one of a model's targets can do it all, nothing
    is dropped.
    """
    body = value.get("body")
    if not isinstance(body, dict) or body.pop("drop_unsupported", False) is not True:
        return []
    url = str(value.get("url", DEFAULT_ROUTE))
    if _body_faults(url, body, router):
        return []
    names = {fault.param.removeprefix("body.") for fault in router.unsupported(url, body)}
    dropped = sorted(names & body.keys())
    for name in dropped:
        del body[name]
    return dropped


def dropped_header(dropped: Sequence[str]) -> dict[str, str]:
    """Return the header that names what was dropped."""
    return {"x-sluice-dropped": ", ".join(dropped)} if dropped else {}


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
