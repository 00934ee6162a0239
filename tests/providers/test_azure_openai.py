"""What golden files cannot say of Azure: where the key is, and that it goes nowhere else."""

import orjson
import pytest

from shared.providers import Call, Deployment, adapter, openai
from shared.providers import azure_openai as speaks
from tests.providers import golden

CALL = Call(golden.CHAT, golden.PLAIN, "job_1-1")


def test_it_has_no_address_of_its_own_and_serves_what_openai_does() -> None:
    assert adapter("azure_openai").DEFAULT_BASE_URL == ""
    assert adapter("azure_openai").ROUTES == openai.ROUTES


def test_the_key_is_in_one_header() -> None:
    where = Deployment("azure", "azure_openai", "https://name.openai.azure.com", "my-deployment")
    request = speaks.request(CALL, where, "secret-key")
    assert [name for name, value in request.headers.items() if "secret-key" in value] == ["api-key"]
    assert "secret-key" not in repr(request) + request.url
    assert orjson.loads(request.body)["model"] == "my-deployment"
    assert "api-key" not in speaks.request(CALL, where, None).headers
    assert "authorization" not in request.headers


@pytest.mark.parametrize("end", ["", "/", "/openai", "/openai/", "/openai/v1", "/openai/v1/"])
def test_an_address_may_end_anyhow(end: str) -> None:
    for host in ("https://name.openai.azure.com", "https://name.services.ai.azure.com", "https://proxy.example/azure"):
        request = speaks.request(CALL, Deployment("azure", "azure_openai", host + end, "d"), "k")
        assert request.url == f"{host}/openai/v1/chat/completions"
