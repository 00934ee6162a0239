"""The vendors that litellm knows: its classes rewrite requests and answers, and Sluice sends them; litellm does no I/O.

The target is `provider/vendor/model` with litellm's names, such as `others/mistral/mistral-small-latest`, and callers
name the vendor likewise: an answer can only be read by who knows whose it is. A vendor is listed here once it is tested
that litellm opens no connection for it; those whose litellm code does (for tokens, polling, cloud credentials) are a
fault. So is what litellm would fetch itself, such as an image's URL.
"""

import importlib
import re
from collections import deque
from typing import Any

import orjson

from shared.errors import ConfigError, ErrorKind, Fault, ProviderError
from shared.json_values import mapping, sequence
from shared.providers import Call, Completion, Deployment, HttpRequest, HttpResponse, StreamReader, openai
from shared.providers._dialect import (
    broken,
    finished,
    json_object,
    kind_of,
    refusal,
    request_id_of,
    text,
    token_count,
    unsupported,
    usage_of,
    usage_shape,
)
from shared.providers._litellm_plan import (
    class_of,
    fetched,
    iterator_of,
    package,
    parameters,
    plan_of,
    quiet,
    target_of,
)
from shared.providers._stream import ChunkStream

DEFAULT_BASE_URL = ""
"""Each vendor has its own, which litellm knows; those that it does not know need one in the configuration."""
ROUTES = frozenset({"/v1/chat/completions"})

_OPENAI_HOST = "https://api.openai.com/"
_TOO_LONG = re.compile(r"context (?:length|window)|maximum context|too many (?:input )?tokens", re.IGNORECASE)
_IN_MESSAGE = ("role", "content", "tool_calls", "function_call", "refusal", "reasoning_content", "annotations", "audio")


def faults(call: Call) -> list[Fault]:
    """Find what litellm says the vendor cannot do, and what litellm would do I/O for."""
    target = target_of(call.model or call.body.get("model"))
    if target is None:
        message = "must name a vendor that is reached through litellm, as provider/vendor/model"
        return [unsupported("body.model", message)]
    if found := fetched(call.body):
        return found
    vendor, model = target
    litellm, speaks = package(), class_of(vendor, model)
    _, unknown = parameters(call.body, speaks, model)
    found = [unsupported(f"body.{name}", f"litellm does not map it for {vendor}") for name in unknown]
    if call.stream and iterator_of(speaks, model, deque()) is None:
        found.append(unsupported("body.stream", f"litellm does not read streams of {vendor} without sending itself"))
    if found:
        return found
    try:
        with quiet():
            plan_of(call, target, "https://vendor.invalid", "none")
    except litellm.UnsupportedParamsError as error:
        return [unsupported("body", text(error.message, 300))]
    except Exception as error:  # litellm raises of every kind where it cannot rewrite a request
        return [unsupported("body", f"litellm cannot rewrite the request for {vendor}: {type(error).__name__}")]
    return []


def request(call: Call, deployment: Deployment, key: str | None) -> HttpRequest:
    """Build the vendor's request. Raises ConfigError where the configuration cannot reach the vendor."""
    target = target_of(deployment.model)
    if target is None or target != target_of(call.model or call.body.get("model")):
        raise ConfigError(
            f"{deployment.provider}/{deployment.model}: a litellm target is provider/vendor/model, and is asked for so"
        )
    try:
        with quiet():
            plan = plan_of(call, target, deployment.base_url or None, key)
    except ConfigError:
        raise
    except Exception:  # `faults` found none with an address and a key, so that one of these is missing
        raise ConfigError(f"{deployment.provider}: litellm needs more for {target[0]}, such as a base_url") from None
    if plan.url.startswith(_OPENAI_HOST) and target[0] != "openai":
        # litellm's fallback, which would hand another vendor's key to OpenAI.
        raise ConfigError(f"{deployment.provider}: litellm knows no address of {target[0]}; set a base_url")
    headers = {name.lower(): str(value) for name, value in plan.headers.items()}
    known = {"content-type": "application/json", "x-client-request-id": call.attempt_id}
    return HttpRequest(url=plan.url, headers=known | headers, body=orjson.dumps(plan.body))


def completion(response: HttpResponse, call: Call) -> Completion | ProviderError:
    """Read a 2xx answer by litellm's class for the vendor."""
    target = target_of(call.model or call.body.get("model"))
    if target is None:
        return broken(response, "the answer is of a vendor that is not known")
    answer = json_object(response.body)
    if answer is None:
        return broken(response, "the answer is not a JSON object")
    if answer.get("error"):
        return error(response)
    httpx, litellm = importlib.import_module("httpx"), package()
    # What is read here has been unpacked already.
    headers = {name: value for name, value in response.headers.items() if name != "content-encoding"}
    try:
        with quiet():
            plan = plan_of(call, target, "https://vendor.invalid", "none")
            raw = httpx.Response(200, headers=headers, content=response.body, request=httpx.Request("POST", plan.url))
            read = plan.speaks.transform_response(
                model=plan.model,
                raw_response=raw,
                model_response=litellm.ModelResponse(id="", created=0, model=plan.model),
                logging_obj=_NoLog(),
                request_data=plan.body,
                messages=plan.messages,
                optional_params=plan.params,
                litellm_params=plan.told,
                encoding=None,
                api_key="none",
                json_mode=plan.json_mode,
            )
            return _whole(read.model_dump() | _own(answer), response, call)
    except Exception as problem:  # litellm raises of every kind at what it cannot read
        return broken(response, f"litellm cannot read the answer: {type(problem).__name__}")


def stream(head: HttpResponse, call: Call) -> StreamReader:
    """Read a streamed answer event by event through litellm's iterator for the vendor."""
    waiting: deque[str] = deque()
    target = target_of(call.model or call.body.get("model"))
    iterator = None
    if target is not None:
        json_mode = isinstance(call.body.get("response_format"), dict)
        iterator = iterator_of(class_of(*target), target[1], waiting, json_mode=json_mode)

    def translate(_: str, event: dict[str, Any]) -> list[dict[str, Any]] | ProviderError:
        if iterator is None:
            return broken(head, "the stream is of a vendor whose streams are not read")
        try:
            waiting.append(f"data: {orjson.dumps(event).decode()}")
            with quiet():
                return [shape for chunk in iterator if (shape := _chunk(chunk, event)) is not None]
        except Exception as problem:  # as above; an error in the stream is one of them
            return _problem(problem, head)

    return ChunkStream(head, translate, lambda whole: _finished(whole, head, call))


def error(response: HttpResponse) -> ProviderError:
    """Read any other answer, whichever vendor's: most say what is wrong in one of a few places."""
    answer = json_object(response.body) or {}
    envelope = answer.get("error")
    if not isinstance(envelope, dict):
        said = next((one for one in (envelope, *map(answer.get, ("message", "detail", "title"))) if text(one)), None)
        said = said or mapping(next(iter(sequence(answer.get("errors"))), None)).get("message")
        envelope = {"message": said, "code": answer.get("code"), "type": answer.get("type")}
    flat = {name: value for name, value in envelope.items() if isinstance(value, str | int)}
    found = openai.error(HttpResponse(response.status, response.headers, orjson.dumps({"error": flat})))
    if found.kind is ErrorKind.INVALID_REQUEST and _TOO_LONG.search(found.message):
        return refusal(response, ErrorKind.CONTEXT_TOO_LONG, found.message)
    return found


class _NoLog:
    """Stands where litellm's classes report to its logging: what they leave here is never read."""

    def __init__(self) -> None:
        self.model_call_details: dict[str, Any] = {}

    def __getattr__(self, _: str) -> Any:
        return lambda *_, **__: None


def _own(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the vendor's id and time of an answer, where litellm would make up both."""
    return {"id": text(answer.get("id"), 256), "created": token_count(answer, "created") or 0}


def _message(given: dict[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in _IN_MESSAGE if given.get(name) is not None}


def _whole(read: dict[str, Any], response: HttpResponse, call: Call) -> Completion | ProviderError:
    choices: list[dict[str, Any]] = []
    for choice in sequence(read.get("choices")):
        message = {"content": None, **_message(mapping(choice.get("message")))}
        reason = choice.get("finish_reason")
        if message.keys() <= {"role", "content"} and message["content"] is None and reason in (None, "stop"):
            return broken(response, "the answer holds no output")
        logprobs = choice.get("logprobs")
        choices.append({"index": len(choices), "message": message, "logprobs": logprobs, "finish_reason": reason})
    if not choices:
        return broken(response, "the answer holds no output")
    head = {name: read[name] for name in ("id", "created", "model", "service_tier") if read.get(name) is not None}
    whole = {**head, "object": "chat.completion", "choices": choices, "usage": read.get("usage")}
    return _finished(whole, response, call)


def _finished(whole: dict[str, Any], response: HttpResponse, call: Call) -> Completion:
    usage = usage_of(whole.get("usage"))
    shape = {**whole, "usage": None if usage.estimated else usage_shape(usage)}
    return finished(shape, call, usage, request_id_of(response))


def _chunk(given: Any, event: dict[str, Any]) -> dict[str, Any] | None:
    """Return one of litellm's two kinds of chunk in OpenAI's shape; None for one that says nothing."""
    if isinstance(given, dict):
        tool = given.get("tool_use")
        delta = {"content": given.get("text") or None, "tool_calls": [tool] if tool else None}
        reason = (given.get("finish_reason") or "stop") if given.get("is_finished") else None
        choice = {"index": given.get("index"), "delta": delta, "finish_reason": reason}
        read: dict[str, Any] = {"choices": [choice], "usage": given.get("usage")}
    else:
        read = given.model_dump()
    choices = []
    for choice in sequence(read.get("choices")):
        delta, reason = _message(mapping(choice.get("delta"))), choice.get("finish_reason")
        if delta or reason is not None:
            said = {"logprobs": choice["logprobs"]} if choice.get("logprobs") else {}
            choices.append({"index": choice.get("index") or 0, "delta": delta, "finish_reason": reason, **said})
    usage = usage_of(read.get("usage"))
    if not choices and usage.estimated:
        return None
    head = {name: read[name] for name in ("model", "service_tier") if read.get(name) is not None}
    counted = {} if usage.estimated else {"usage": usage_shape(usage)}
    return {**_own(event), **head, "object": "chat.completion.chunk", "choices": choices, **counted}


def _problem(problem: Exception, head: HttpResponse) -> ProviderError:
    """Return what an exception of litellm's says: an error in a stream is one with the status that the vendor meant."""
    status = getattr(problem, "status_code", None)
    if type(status) is int and 400 <= status <= 599:
        return refusal(head, kind_of(status), text(getattr(problem, "message", None)))
    return broken(head, f"litellm cannot read the stream: {type(problem).__name__}")
