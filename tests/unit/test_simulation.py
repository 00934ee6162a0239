"""The simulated provider is deterministic, fails on demand, and really summarizes."""

import base64
import json
import struct
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import imitation, simulation
from shared.simulation import Behaviour, reply

DOCUMENTS = Path(__file__).parents[2] / "examples" / "documents"


def ask(body: dict[str, Any], *, seen: int = 0, behaviour: Behaviour | None = None) -> simulation.Reply:
    raw = orjson.dumps(body)
    same = simulation.identity(body, raw)
    return reply(behaviour or Behaviour(), "/v1/chat/completions", body, seen=seen, same=same)


def content_of(answer: simulation.Reply) -> str:
    return str(orjson.loads(answer.body)["choices"][0]["message"]["content"])


def chat(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **fields}


def test_the_same_request_gets_the_same_answer() -> None:
    random = Behaviour(latency_ms=100, latency_p95_ms=300, rate_429=0.3, rate_500=0.3)
    for number in range(50):
        assert ask(chat(f"{number}"), behaviour=random) == ask(chat(f"{number}"), behaviour=random)
    answers = {ask(chat(f"{number}"), behaviour=random).status for number in range(50)}
    assert answers == {200, 429, 500}
    other = Behaviour(seed=2, latency_ms=100, latency_p95_ms=300)
    assert ask(chat("x"), behaviour=other).latency != ask(chat("x"), behaviour=random).latency


def test_latencies_have_the_median_and_p95_asked_for() -> None:
    behaviour = Behaviour(latency_ms=100, latency_p95_ms=300)
    latencies = sorted(ask(chat(f"{number}"), behaviour=behaviour).latency for number in range(2_000))
    assert 0.09 < latencies[1_000] < 0.11
    assert 0.26 < latencies[1_900] < 0.34


def test_it_fails_on_demand_and_in_order() -> None:
    body = chat("x", simulate={"key": "k", "fail": [{"status": 429, "retry_after": 2}, "hang", "html", "error_in_200"]})
    seen = [ask(body, seen=number) for number in range(6)]
    assert [one.status for one in seen] == [429, 200, 200, 200, 200, 200]
    assert seen[0].headers == {"retry-after": "2"}
    assert [one.fault for one in seen] == [None, "hang", None, None, None, None]
    assert seen[2].body.startswith(b"<html>")
    assert "error" in orjson.loads(seen[3].body)
    assert "choices" in orjson.loads(seen[4].body)


def test_limits_of_a_model_are_kept() -> None:
    too_long = ask(chat("word " * 500), behaviour=Behaviour(context_tokens=100))
    assert too_long.status == 400
    assert orjson.loads(too_long.body)["error"]["code"] == "context_length_exceeded"
    answer = orjson.loads(ask(chat("one two three four five six", max_tokens=3)).body)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3


def test_an_answer_says_the_tokens_it_uses_streamed_or_not_and_an_error_none() -> None:
    body = chat("one two three", simulate={"output_tokens": 70, "key": "k"})
    usage = orjson.loads(ask(body).body)["usage"]
    assert usage["completion_tokens"] == 70
    assert ask(body).tokens == usage["total_tokens"] == usage["prompt_tokens"] + 70
    assert ask({**body, "max_tokens": 30}).tokens == usage["prompt_tokens"] + 30
    assert ask({**body, "stream": True}).tokens == usage["total_tokens"]
    failing = chat("x", simulate={"fail": [{"status": 500}, "html", "hang"]})
    assert [ask(failing, seen=number).tokens for number in range(3)] == [0, 0, 0]
    embedded = reply(Behaviour(), "/v1/embeddings", {"model": "e", "input": "a b c"}, seen=0, same="x")
    assert embedded.tokens == orjson.loads(embedded.body)["usage"]["total_tokens"] > 0


def test_a_refusal_says_what_there_is_too_little_of() -> None:
    found = simulation.refusal(429, retry_after=0.25, lacking="tokens")
    assert orjson.loads(found.body)["error"]["type"] == "tokens"
    assert orjson.loads(simulation.refusal(429).body)["error"]["type"] == "requests"
    assert found.headers == {"retry-after": "0.25"}


def test_a_summary_is_made_of_sentences_of_the_text() -> None:
    for path in sorted(DOCUMENTS.glob("*.txt")):
        text = path.read_text()
        prompt = f"Summarize the following text in at most 80 words.\n\n{text}"
        summary = orjson.loads(ask(chat(prompt)).body)["choices"][0]["message"]["content"]
        assert 20 <= len(summary.split()) <= simulation.SUMMARY_WORDS + 60, path
        assert "Summarize" not in summary
        flat = " ".join(text.split())
        assert summary[:25] in flat
        assert summary[-25:] in flat


def test_half_sentences_are_left_out() -> None:
    whole = "The committee of the harbour decided to widen the channel before the winter storms arrive again."
    text = (
        f"of the last report on the harbour channel committee winter storms. {whole} And then the harbour committee of"
    )
    assert simulation.summary(text) == whole
    assert simulation.summary("half of a sentence without an") == "half of a sentence without an"


@pytest.mark.parametrize(
    "text",
    [
        "The river rose again in spring and the town built a wall. " * 3_500,
        "word " * 40_000,
        "a" * 200_000,
        ". " + " " * 200_000 + "x",
        "\n " * 100_000,
        "Aa. " * 50_000,
    ],
    ids=["sentences", "no sentence", "no word", "spaces", "lines", "short"],
)
def test_a_long_text_of_any_kind_is_summarized_in_no_time(text: str) -> None:
    begun = time.perf_counter()
    made = simulation.summary(text)
    assert time.perf_counter() - begun < 1  # a fiftieth of that on a quiet machine
    assert len(made) <= 12 * simulation.SUMMARY_WORDS


def test_the_instruction_may_stand_in_the_system_message_and_the_text_in_parts() -> None:
    text = (DOCUMENTS / "1790_george_washington_n.txt").read_text()
    system = {"role": "system", "content": "You summarize texts."}
    for content in (text, [{"type": "text", "text": text}]):
        body = {"model": "m", "messages": [system, {"role": "user", "content": content}]}
        assert content_of(ask(body)) == simulation.summary(text)
    short = content_of(ask({"model": "m", "messages": [system, {"role": "user", "content": text}], "max_tokens": 60}))
    assert len(short.split()) < len(simulation.summary(text).split())


def test_the_answer_is_to_the_last_user_message() -> None:
    messages = [
        {"role": "user", "content": "first question"},
        {"role": "assistant", "content": "an answer"},
        {"role": "user", "content": "second one here"},
        {"role": "tool", "content": "not this"},
    ]
    assert content_of(ask({"model": "m", "messages": messages})) == (
        "You said 3 words, beginning with: second one here"
    )


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
SIMULATE = st.dictionaries(
    st.sampled_from(["latency_ms", "fail", "key", "output_tokens"]),
    ANY | st.lists(st.fixed_dictionaries({"status": ANY, "retry_after": ANY})),
)
FIELDS = ["model", "messages", "input", "max_tokens", "max_completion_tokens", "dimensions", "encoding_format"]


@given(
    st.dictionaries(st.sampled_from(FIELDS), ANY), ANY | SIMULATE, st.sampled_from(["chat/completions", "embeddings"])
)
def test_no_body_breaks_it(body: dict[str, Any], simulate: Any, route: str) -> None:
    body["simulate"] = simulate
    raw = json.dumps(body).encode(errors="surrogatepass")
    behaviour = Behaviour(context_tokens=50, rate_500=0.1)
    made = reply(behaviour, f"/v1/{route}", body, seen=0, same=simulation.identity(body, raw))
    assert made.status == 200 or 400 <= made.status <= 599
    assert 0 <= made.latency <= 3_600
    if made.fault is None and made.body[:1] != b"<":
        assert orjson.loads(made.body)


def test_embeddings_are_unit_vectors_in_both_encodings() -> None:
    def embed(**fields: Any) -> Any:
        body = {"model": "e", "input": ["a", "b"], **fields}
        return orjson.loads(reply(Behaviour(), "/v1/embeddings", body, seen=0, same="x").body)["data"]

    floats = embed(dimensions=8)
    assert [len(one["embedding"]) for one in floats] == [8, 8]
    assert abs(sum(x * x for x in floats[0]["embedding"]) - 1) < 1e-9
    assert floats[0]["embedding"] != floats[1]["embedding"]
    packed = base64.b64decode(embed(dimensions=8, encoding_format="base64")[0]["embedding"], validate=True)
    assert struct.unpack("<8f", packed) == pytest.approx(floats[0]["embedding"], abs=1e-6)
    assert len(embed(input=[1, 2, 3])) == 1
    assert len(embed(input=[[1, 2], [3]])) == 2
    assert len(embed()[0]["embedding"]) == imitation.DIMENSIONS
