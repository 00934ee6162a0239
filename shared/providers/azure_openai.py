"""Azure's OpenAI v1 API (https://learn.microsoft.com/azure/ai-foundry/openai/latest): OpenAI's own, at a resource.

A target's model is the name of a deployment there. A `base_url` is the resource's, such as
`https://NAME.openai.azure.com`, with or without `/openai/v1`. What the content filter refuses comes as an error whose
`innererror` says so.
"""

from dataclasses import replace

from shared.errors import Fault, ProviderError
from shared.providers import Call, Completion, Deployment, HttpRequest, HttpResponse, StreamReader, openai
from shared.providers import _openai_reading as reading
from shared.providers._dialect import json_object, request_id_of
from shared.providers._openai_errors import error_in

DEFAULT_BASE_URL = ""
ROUTES = openai.ROUTES

_PATH = "/openai/v1"


def faults(call: Call) -> list[Fault]:
    """Find nothing, as for OpenAI itself."""
    return openai.faults(call)


def request(call: Call, deployment: Deployment, key: str | None) -> HttpRequest:
    """Build the request: OpenAI's, with Azure's path and header."""
    built = openai.request(call, replace(deployment, base_url=_address(deployment.base_url)), None)
    return replace(built, headers=built.headers | {"api-key": key}) if key else built


def listing(base_url: str, key: str | None) -> HttpRequest:
    """Build the request for the list of models."""
    built = openai.listing(_address(base_url), None)
    return replace(built, headers={"api-key": key}) if key else built


def completion(response: HttpResponse, call: Call) -> Completion | ProviderError:
    """Read a 2xx answer: a chat completion, embeddings, or a response."""
    response = _identified(response)
    if call.url != "/v1/responses":
        return reading.completion(response, call)
    answer = json_object(response.body)
    return error_in(answer, response) if answer and answer.get("error") else openai.completion(response, call)


def stream(head: HttpResponse, call: Call) -> StreamReader:
    """Read a streamed chat completion, or a streamed response."""
    head = _identified(head)
    return openai.stream(head, call) if call.url == "/v1/responses" else reading.stream(head, call)


def error(response: HttpResponse) -> ProviderError:
    """Read any other answer."""
    return reading.error(_identified(response))


def _address(base_url: str) -> str:
    return base_url.rstrip("/").removesuffix(_PATH).removesuffix("/openai") + _PATH


def _identified(response: HttpResponse) -> HttpResponse:
    """Return an answer with Azure's request id where everybody else's is."""
    found = request_id_of(response, "apim-request-id")
    return replace(response, headers=response.headers | {"x-request-id": found}) if found else response
