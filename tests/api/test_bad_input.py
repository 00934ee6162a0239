"""Bad input gets a clear 4xx that names each fault, in OpenAI's envelope, and leaves nothing behind."""

import gzip
from collections.abc import Mapping
from typing import Any

import pytest

from tests.api.conftest import MOST_BYTES, MOST_REQUESTS, raw_answer
from tests.gateway import ADMIN_KEY, Gateway, line

pytestmark = pytest.mark.usefixtures("nothing_stored")

GOOD = {"model": "fast", "messages": [{"role": "user", "content": "x"}]}
EARLY, LATE = "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"


def checked(shape: Any) -> Any:
    """Return the error of an answer, which must be OpenAI's envelope."""
    assert shape.keys() == {"error"}
    assert shape["error"].keys() - {"faults"} == {"message", "type", "param", "code"}
    assert shape["error"]["message"]
    assert shape["error"]["type"]
    return shape["error"]


async def post(
    api: Gateway, raw: bytes, path: str = "/v1/jobs", headers: Mapping[str, str] | None = None
) -> tuple[int, Any]:
    async with api.client.post(api.url + path, data=raw, headers=headers) as answer:
        assert answer.headers["x-request-id"]
        return answer.status, checked(await answer.json())


async def refused(api: Gateway, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    status, shape, _ = await api.ask(method, path, body, headers=headers)
    return status, checked(shape)


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b'{"body": }', b"[]", b"5", b'"x"', b"null", b'{"body": NaN}', b'{"body": Infinity}', b"\x00",
        b'{"body":{"model":"\xff"}}', b'{"body":{"model":"a\x00b"}}', b'{"body":{"model":"\\ud800"}}',
        b"\xef\xbb\xbf{}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/batches", "/v1/jobs/retry"])
async def test_what_is_no_json_object(api: Gateway, path: str, raw: bytes) -> None:
    status, error = await post(api, raw, path)
    assert (status, error["code"]) == (400, "invalid_json")


@pytest.mark.parametrize(
    ("job", "params"),
    [
        ({}, {"body"}),
        ({"body": 5}, {"body"}),
        ({"body": {}}, {"body.model", "body.messages"}),
        ({"body": {"model": 5, "messages": []}}, {"body.model", "body.messages"}),
        ({"body": GOOD | {"messages": [{"role": 5}, "x", {"role": "user"}]}}, {"body.messages[0]", "body.messages[1]"}),
        ({"body": GOOD | {"model": "m" * 300}}, {"body.model"}),
        ({"body": GOOD, "url": "/v1/nope"}, {"url"}),
        ({"body": GOOD, "url": ["/v1/embeddings"]}, {"url"}),
        ({"body": GOOD, "method": "GET"}, {"method"}),
        ({"body": {"model": "fast", "input": []}, "url": "/v1/embeddings"}, {"body.input"}),
        ({"body": GOOD, "priority": "urgent", "bogus": 1}, {"priority", "bogus"}),
        ({"body": GOOD, "id": "job_1", "tenant_id": "x", "status": "completed"}, {"id", "tenant_id", "status"}),
        ({"body": GOOD, "deadline": -1}, {"deadline"}),
        ({"body": GOOD, "deadline": 0, "run_at": "soon"}, {"deadline", "run_at"}),
        ({"body": GOOD, "deadline": 1e300}, {"deadline"}),
        ({"body": GOOD, "deadline": True, "run_at": False}, {"deadline", "run_at"}),
        ({"body": GOOD, "deadline": "2020-01-01T00:00:00Z"}, {"deadline"}),
        ({"body": GOOD, "deadline": "2999-01-01T00:00:00"}, {"deadline"}),
        ({"body": GOOD, "deadline": LATE, "run_at": EARLY}, {"deadline", "run_at"}),
        ({"body": GOOD, "deadline": 60, "run_at": "2999-01-01T00:00:00Z"}, {""}),
        ({"body": GOOD, "custom_id": ""}, {"custom_id"}),
        ({"body": GOOD, "custom_id": "c" * 513}, {"custom_id"}),
        ({"body": GOOD, "custom_id": 5, "metadata": []}, {"custom_id", "metadata"}),
        ({"body": GOOD, "metadata": {"k": 1}}, {"metadata.k"}),
        ({"body": GOOD, "metadata": {str(n): "v" for n in range(17)}}, {"metadata"}),
        ({"body": GOOD, "metadata": {"k": "v" * 513}}, {"metadata.k"}),
        ({"body": GOOD, "metadata": {"k" * 65: "v"}}, {f"metadata.{'k' * 65}"}),
        ({"body": GOOD, "webhook": "https://example.com"}, {"webhook"}),
        ({"body": GOOD, "webhook": {}}, {"webhook.url"}),
        ({"body": GOOD, "webhook": {"url": "http://example.com"}}, {"webhook.url"}),
        ({"body": GOOD, "webhook": {"url": "https://user:pw@example.com"}}, {"webhook.url"}),
        ({"body": GOOD, "webhook": {"url": "https://127.0.0.1/x"}}, {"webhook.url"}),
        ({"body": GOOD, "webhook": {"url": "https://169.254.169.254/latest"}}, {"webhook.url"}),
        ({"body": GOOD, "webhook": {"url": "https://[::ffff:10.0.0.1]/x"}}, {"webhook.url"}),
        ({"body": GOOD, "webhook": {"url": "file:///etc/passwd", "what": 1}}, {"webhook.url", "webhook.what"}),
        ({"body": GOOD | {"messages": [{"role": "user", "content": "a\0b"}]}}, {"body.messages[0].content"}),
        ({"body": GOOD | {"a\0": 1}}, {"body.a\\u0000"}),
        ({"body": GOOD, "custom_id": "a\0"}, {"custom_id"}),
        (
            {"body": {"model": "", "messages": []}, "deadline": -1, "webhook": {"url": "x"}, "bogus": 1},
            {"body.model", "body.messages", "deadline", "webhook.url", "bogus"},
        ),
    ],
)
async def test_every_fault_is_named(api: Gateway, job: Any, params: set[str]) -> None:
    status, error = await refused(api, "POST", "/v1/jobs", job)
    assert status == 400, error
    assert {fault["param"] for fault in error["faults"]} == params
    assert all(fault["message"] for fault in error["faults"])
    # The same line in a batch is refused the same way, and named by its index.
    status, error = await refused(api, "POST", "/v1/batches", {"requests": [{"body": GOOD}, job]})
    assert status == 400
    assert {fault["param"] for fault in error["faults"]} == {f"requests[1].{param}".rstrip(".") for param in params}


async def test_an_unknown_model_is_404_when_it_is_the_only_fault(api: Gateway) -> None:
    for path, job in (("body.model", line(model="nobody-has-this")), ("body.model", line(model="nobody/small"))):
        status, error = await refused(api, "POST", "/v1/jobs", job)
        assert (status, error["code"], error["param"]) == (404, "model_not_found", path)
        assert job["body"]["model"] in error["message"]
    status, error = await refused(api, "POST", "/v1/jobs", line(model="nobody-has-this", priority="x"))
    assert (status, error["code"]) == (400, "invalid_request")
    lines = [line(), line(model="nobody-has-this")]
    status, error = await refused(api, "POST", "/v1/batches", {"requests": lines})
    assert (status, error["code"], error["param"]) == (404, "model_not_found", "requests[1].body.model")


async def test_a_body_over_the_limit_is_413(api: Gateway) -> None:
    for path in ("/v1/jobs", "/v1/batches", "/v1/jobs/retry"):
        status, error = await refused(api, "POST", path, line(text="x" * MOST_BYTES))
        assert (status, error["code"]) == (413, "body_too_large")


async def test_a_packed_body_is_measured_unpacked(api: Gateway) -> None:
    bomb = gzip.compress(b" " * (10 * MOST_BYTES))
    status, error = await post(api, bomb, headers={"Content-Encoding": "gzip"})
    assert (status, error["code"]) == (413, "body_too_large")
    status, _ = await post(api, b"not packed at all", headers={"Content-Encoding": "gzip"})
    assert status == 400


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("start", [b"", b'{"body": ', b'{"x": "\\u0000", "body": '])
async def test_deep_nesting_is_refused(api: Gateway, start: bytes, opening: bytes) -> None:
    status, error = await post(api, start + opening * (MOST_BYTES // 4 // len(opening)))
    assert (status, error["code"]) == (400, "invalid_json")


@pytest.mark.parametrize("depth", [300, 500, 1_000])
@pytest.mark.parametrize("start", [b'{"body": ', b'{"x": "\\u0000", "body": '])
async def test_nesting_that_the_parser_takes_is_refused_too(api: Gateway, start: bytes, depth: int) -> None:
    for inner in (b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth):
        status, error = await post(api, start + b'{"model":"fast","messages":[{"role":"user"}],"deep":' + inner + b"}}")
        assert (status, error["code"] in ("invalid_json", "invalid_request")) == (400, True)


async def test_a_batch_names_the_faults_of_all_its_lines(api: Gateway) -> None:
    lines: list[Any] = [line(custom_id=str(number)) for number in range(20)]
    lines[3]["custom_id"] = "7"
    lines[11] = {"body": {"model": 1}}
    lines[19] = "x"
    status, error = await refused(api, "POST", "/v1/batches", {"requests": lines})
    assert status == 400
    assert [fault["param"] for fault in error["faults"]] == [
        "requests[7].custom_id",
        "requests[11].body.model",
        "requests[11].body.messages",
        "requests[19]",
    ]
    assert "requests[3]" in error["message"]


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({}, None),
        ({"requests": [line()], "input_file_id": "file_0"}, None),
        ({"requests": []}, "requests"),
        ({"requests": "x"}, "requests"),
        ({"requests": [line()], "endpoint": "/v1/nope"}, "endpoint"),
        ({"requests": [line()], "metadata": {"k": 1}}, "metadata.k"),
        ({"requests": [line()], "bogus": 1}, "bogus"),
    ],
)
async def test_a_batch_that_is_none(api: Gateway, wrong: Any, param: str | None) -> None:
    status, error = await refused(api, "POST", "/v1/batches", wrong)
    assert (status, error["param"]) == (400, param)


async def test_a_batch_of_too_much(api: Gateway) -> None:
    status, error = await refused(api, "POST", "/v1/batches", {"requests": [0] * (MOST_REQUESTS + 1)})
    assert (status, error["code"], error["param"]) == (413, "too_many_tasks", "requests")
    status, error = await refused(api, "POST", "/v1/batches", {"requests": [0] * MOST_REQUESTS})
    assert (status, len(error["faults"])) == (400, 100)


async def test_numbers_that_nothing_holds(api: Gateway) -> None:
    status, error = await post(api, b'{"body": {"seed": ' + b"9" * 400 + b"}}")
    assert (status, error["code"]) == (400, "invalid_json")
    for digits in (10, 400, 5_000):
        for query in ("limit", "wait"):
            path = "/v1/jobs" if query == "limit" else f"/v1/jobs/job_{'0' * 32}"
            status, error = await refused(api, "GET", f"{path}?{query}={'9' * digits}")
            assert (status, error["param"]) in ((400, query), (404, None)), (query, digits)


@pytest.mark.parametrize(
    ("method", "path", "expected", "code"),
    [
        ("GET", "/nope", 404, "route_not_found"),
        ("POST", "/v1", 404, "route_not_found"),
        ("PUT", "/v1/jobs", 405, "method_not_allowed"),
        ("DELETE", "/v1/jobs/x", 405, "method_not_allowed"),
        ("GET", "/v1/jobs/job_x", 404, "job_not_found"),
        ("GET", "/v1/jobs/job_" + "0" * 32, 404, "job_not_found"),
        ("GET", "/v1/jobs/batch_" + "0" * 32, 404, "job_not_found"),
        ("GET", "/v1/jobs/x/attempts", 404, "job_not_found"),
        ("POST", "/v1/jobs/x%00/cancel", 404, "job_not_found"),
        ("GET", "/v1/batches/batch_" + "f" * 32, 404, "batch_not_found"),
        ("POST", "/v1/batches/x/cancel", 404, "batch_not_found"),
    ],
)
async def test_what_is_not_there(api: Gateway, method: str, path: str, expected: int, code: str) -> None:
    status, shape, headers = await api.ask(method, path)
    assert (status, checked(shape)["code"]) == (expected, code)
    if status == 405:
        assert "GET" in headers["Allow"]


@pytest.mark.parametrize("header", [b"", b"Bearer", b"Bearer wrong", b"Basic abc", b"Bearer \xc3\xa9", b"Bearer \xe9"])
async def test_no_key_no_answer(api: Gateway, header: bytes) -> None:
    for route in (b"GET /v1/jobs", b"POST /v1/jobs", b"GET /nope"):
        request = route + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: " + header + b"\r\n\r\n"
        status, body = await raw_answer(api, request)
        assert status == 401, body
        assert b'"authentication_error"' in body


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"no-such", 404),
        (b"a" * 200, 404),
        (b"tenant_" + b"0" * 32, 404),
        (b"a'; DROP TABLE tenants; --", 404),
        (b"", 400),
        (b"\xe9", 400),
        (b"a\tb", 400),
    ],
)
async def test_what_names_no_tenant(api: Gateway, name: bytes, expected: int) -> None:
    head = b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer " + ADMIN_KEY.encode()
    status, body = await raw_answer(api, head + b"\r\nX-Sluice-Tenant: " + name + b"\r\n\r\n")
    assert status == expected
    assert b'"X-Sluice-Tenant"' in body
