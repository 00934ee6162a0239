"""What callers send: every fault at once, each where it is; nothing that JSON can hold breaks the checks."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.batch_request import BatchRequest
from shared.schemas import JobRequest, Priority, body_faults, faults_of, null_characters

BODY = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
OPTIONS = ["custom_id", "method", "url", "body", "priority", "run_at", "deadline", "webhook", "metadata", "bogus"]


def faults(value: object) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as caught:
        JobRequest.model_validate(value)
    return [(fault.param, fault.message) for fault in faults_of(caught.value)]


def refusal(value: object) -> ValidationError | None:
    try:
        JobRequest.model_validate(value)
    except ValidationError as error:
        return error
    return None


def test_defaults() -> None:
    job = JobRequest.model_validate({"body": BODY})
    assert (job.method, job.url, job.priority) == ("POST", "/v1/chat/completions", Priority.STANDARD)
    assert (job.custom_id, job.run_at, job.deadline, job.webhook, job.metadata) == (None, None, None, None, {})


def test_the_body_is_kept_as_it_is() -> None:
    body = BODY | {"unknown": {"nested": [1, None, 2.5]}, "temperature": 0}
    assert JobRequest.model_validate({"body": body}).body == body


def test_every_fault_is_found_at_once() -> None:
    wrong = {"body": BODY, "priority": "urgent", "metadata": {"k": 1}, "webhook": {"url": 5, "x": 1}, "bogus": 1}
    assert {param for param, _ in faults(wrong)} == {"priority", "metadata.k", "webhook.url", "webhook.x", "bogus"}


def test_what_is_wrong_is_told_in_few_words_however_much_it_is() -> None:
    many = {f"{number}": 1 for number in range(100_000)}
    [fault] = faults_of(_wrong(many), prefix="a")
    assert (fault.param, fault.message) == ("a", "has 100,001 faults")
    long = "x" * 1_000_000
    assert [len(fault.param) < 200 for fault in faults_of(_wrong({long: 1, "body": {}}))] == [True]
    found = null_characters({long: {long: ["\0"] * 10_000}})
    assert (len(found), max(len(fault.param) for fault in found) < 400) == (100, True)
    assert len(body_faults("/v1/chat/completions", {"model": "m", "messages": [1] * 10_000})) == 100


def _wrong(value: Any) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        JobRequest.model_validate(value)
    return caught.value


def test_params_are_paths() -> None:
    with pytest.raises(ValidationError) as caught:
        BatchRequest.model_validate({"requests": "x", "metadata": {"k": []}})
    assert [fault.param for fault in faults_of(caught.value, prefix="a[1]")] == ["a[1].requests", "a[1].metadata.k"]


@pytest.mark.parametrize("secret", ["sk-verysecret", "a prompt"])
def test_what_was_sent_is_not_in_a_message(secret: str) -> None:
    wrong = {"body": secret, "priority": secret, "url": secret, "metadata": {"k": [secret]}, "deadline": secret}
    assert all(secret not in message for _, message in faults(wrong))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2999-01-01T00:00:00Z", datetime(2999, 1, 1, tzinfo=UTC)),
        ("2999-01-01T02:00:00.5+02:00", datetime(2999, 1, 1, microsecond=500_000, tzinfo=UTC)),
        ("2998-12-31t22:00:00-02:00", datetime(2999, 1, 1, tzinfo=UTC)),
    ],
)
def test_times_become_utc(written: str, expected: datetime) -> None:
    job = JobRequest.model_validate({"body": BODY, "run_at": written})
    assert job.run_at == expected
    assert job.run_at.tzinfo is UTC
    assert JobRequest.model_validate({"body": BODY, "deadline": written}).deadline == expected


@pytest.mark.parametrize("seconds", [1, 0.5, 86_400, 10**9])
def test_a_deadline_may_be_seconds_from_now(seconds: float) -> None:
    before = datetime.now(UTC)
    deadline = JobRequest.model_validate({"body": BODY, "deadline": seconds}).deadline
    assert deadline is not None
    assert before <= deadline - timedelta(seconds=seconds) <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        (name, wrong)
        for name in ("run_at", "deadline")
        for wrong in ("soon", "", "2999-01-01", "2999-01-01T00:00:00", "9999-12-31T23:59:59-14:00", True, [], {})
    ]
    + [("deadline", wrong) for wrong in (0, -1, 1e300, -1e300, 10**30, "2020-01-01T00:00:00Z")],
)
def test_what_is_no_time(name: str, wrong: object) -> None:
    [(param, message)] = faults({"body": BODY, name: wrong})
    assert param == name
    assert message


def test_a_job_may_not_begin_after_its_deadline() -> None:
    same = "2999-01-01T00:00:00Z"
    assert faults({"body": BODY, "run_at": same, "deadline": same}) == [("", "run_at is not before deadline")]
    JobRequest.model_validate({"body": BODY, "run_at": "2998-12-31T23:59:59.999999Z", "deadline": same})


@pytest.mark.parametrize(
    ("url", "body", "params"),
    [
        ("/v1/chat/completions", {}, ["body.model", "body.messages"]),
        ("/v1/chat/completions", {"model": "", "messages": {}}, ["body.model", "body.messages"]),
        (
            "/v1/chat/completions",
            BODY | {"messages": [{}, 1, {"role": "user"}]},
            ["body.messages[0]", "body.messages[1]"],
        ),
        ("/v1/chat/completions", BODY | {"stream": True}, []),
        ("/v1/responses", {"model": "m", "input": "hi"}, []),
        ("/v1/responses", {"model": "m", "background": 1}, ["body.input", "body.background"]),
        ("/v1/responses", {"model": "m", "input": "hi", "background": True, "previous_response_id": "resp_1"}, []),
        ("/v1/responses", {"model": "m", "input": "hi", "background": True, "store": False}, ["body.store"]),
        ("/v1/responses", {"model": "m", "input": "hi", "previous_response_id": 1}, ["body.previous_response_id"]),
        ("/v1/chat/completions", BODY | {"model": "m" * 256}, []),
        ("/v1/chat/completions", BODY | {"model": "m" * 257}, ["body.model"]),
        ("/v1/embeddings", {"model": "m"}, ["body.input"]),
        ("/v1/embeddings", {"model": "m", "input": ""}, ["body.input"]),
        ("/v1/embeddings", {"model": "m", "input": {"a": 1}}, ["body.input"]),
        ("/v1/embeddings", {"model": "m", "input": [[1, 2]]}, []),
        ("/v1/embeddings", {"model": "m", "input": "x"}, []),
    ],
)
def test_bodies(url: str, body: dict[str, Any], params: list[str]) -> None:
    assert [fault.param for fault in body_faults(url, body)] == params


@given(
    value=st.dictionaries(st.sampled_from(OPTIONS), json_values),
    url=st.sampled_from(["/v1/chat/completions", "/v1/embeddings", "/x"]),
    body=st.dictionaries(st.sampled_from(["model", "messages", "input", "stream"]), json_values),
)
def test_no_json_breaks_it(value: dict[str, Any], url: str, body: dict[str, Any]) -> None:
    for fault in body_faults(url, body):
        assert fault.param.startswith("body.")
    for candidate in (value, {"body": BODY, **value}):
        if refused := refusal(candidate):
            assert faults_of(refused)


def test_nulls_are_found_wherever_they_are() -> None:
    value = {"a": ["x", {"b\0": "y", "c": "\0"}], "d": {"e": "ok"}, "f": "z\0"}
    assert [fault.param for fault in null_characters(value)] == ["a[1].b\\u0000", "a[1].c", "f"]


@given(json_values)
def test_a_value_has_a_fault_exactly_where_its_text_has_a_null(value: object) -> None:
    def holds(part: object) -> bool:
        match part:
            case str():
                return "\0" in part
            case dict():
                return any("\0" in key or holds(item) for key, item in part.items())
            case list():
                return any(map(holds, part))
        return False

    assert bool(null_characters(value)) is holds(value)
