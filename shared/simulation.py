"""What the simulated provider answers: pure, and the same for the same seed and request.

A request may say itself how it wants to be treated, in a `simulate` object of its body:

| field | meaning |
|---|---|
| `latency_ms` | how long the answer takes, or a streamed one until it begins |
| `chunk_ms` | how long each further chunk of a streamed answer takes |
| `output_tokens` | how many tokens the answer is said to have |
| `fail` | one entry for each time the request is seen; past its end the request succeeds |
| `answers` | one text for each time the request is seen, said instead of an answer; past its end the usual is said |
| `key` | what makes two requests the same (else their whole body) |

An entry of `fail` is `{"status": 429, "retry_after": 1}`, or "hang", "reset", "truncate", "html", "error_in_200"; for a
streamed answer also "break" and "stream_error", which end it in the middle.

For a prompt that asks for a summary the answer is a real extractive one: the sentences of the text that say most. For a
JSON schema it is JSON that fits, and tools that must be called are.
"""

import hashlib
import math
import random
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Any, Literal

import orjson

from shared import imitation, tokens

Fault = Literal["hang", "reset", "truncate", "break"]

SUMMARY_WORDS = 110
_LONGEST_SENTENCE = 60
"""In words; what is longer is a list or a table."""
_LONGEST_LATENCY_MS = 3_600_000.0
_COUNTED_AS = "gpt-4o"
_P95 = NormalDist().inv_cdf(0.95)
_SENTENCE_END = re.compile(
    r"""(?:(?<=[.!?])|(?<=[.!?]["')\]]))(?<!\b[A-Z]\.)(?<!\bMr\.)(?<!\bMrs\.)(?<!\bDr\.)\s+(?=["'(\[]?[^\W\d_a-z])|\n\s*\n"""
)
_WORD = re.compile(r"[^\W\d_]{3,}")
_STOPWORDS = frozenset(
    _WORD.findall(
        "the and for that this with from have has had are was were been being not but they their them there "
        "which who whom whose will would shall should may might must can could our ours your his her hers its "
        "you she him all any such than then these those upon into over under more most other some only also "
        "very what when where while each every both few own same too here how why about against between "
        "through during before after above below again further once because until does did doing now one two "
        "made make many much let said say says well even without within among still yet per ever never "
        "applause "
    )
)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the simulated provider behaves. Latencies are in ms, log-normal where the p95 is above the median."""

    seed: int = 1
    latency_ms: float = 0.0
    latency_p95_ms: float = 0.0
    rate_429: float = 0.0
    rate_500: float = 0.0
    rate_hang: float = 0.0
    context_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and how it goes out: after `latency` seconds, and with which fault in the connection.

    A streamed one goes out in `pieces`, the time between them in seconds. `tokens` is what its usage says, in and out
    together; an error uses none.
    """

    status: int
    body: bytes = field(repr=False)
    latency: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    fault: Fault | None = None
    pieces: tuple[bytes, ...] = field(default=(), repr=False)
    between: float = 0.0
    tokens: int = 0


def identity(body: dict[str, Any], raw: bytes) -> str:
    """Return what makes two requests the same."""
    asked = body.get("simulate")
    if isinstance(asked, dict) and "key" in asked:
        raw = f"key {asked['key']}".encode()
    return hashlib.blake2b(raw, digest_size=16).hexdigest()


def reply(behaviour: Behaviour, path: str, body: dict[str, Any], *, seen: int, same: str) -> Reply:
    """Return the answer to a request that was `seen` times before; `same` is its `identity`."""
    asked = body.get("simulate")
    asked = asked if isinstance(asked, dict) else {}
    rng = random.Random(f"{behaviour.seed} {same} {seen}") if _random(behaviour) else None
    latency = _latency(behaviour, asked, rng)
    planned = asked.get("fail")
    broken = planned[seen] if isinstance(planned, list) and seen < len(planned) else None
    if broken is not None and not (body.get("stream") and broken in ("break", "stream_error")):
        return _planned(broken, latency)
    if rng is not None:
        for rate, refusal in (
            (behaviour.rate_429, {"status": 429, "retry_after": 1}),
            (behaviour.rate_500, {"status": 500}),
            (behaviour.rate_hang, "hang"),
        ):
            if rate and rng.random() < rate:
                return _planned(refusal, latency)
    prompt = tokens.count_request(body, _COUNTED_AS).tokens
    if behaviour.context_tokens and prompt > behaviour.context_tokens:
        return _too_long(behaviour.context_tokens, prompt, latency)
    if path.endswith("/embeddings"):
        return _embeddings(behaviour, body, prompt, latency)
    said = asked.get("answers")
    said = said[seen] if isinstance(said, list) and seen < len(said) else None
    answer = _chat(body, asked, same, prompt, said)
    if not body.get("stream"):
        return Reply(200, orjson.dumps(answer), latency, tokens=answer["usage"]["total_tokens"])
    return _streamed(body, asked, answer, latency, broken)


def refusal(status: int, *, retry_after: float | None = None, lacking: str = "requests") -> Reply:
    """Return an error in OpenAI's envelope; `lacking` is what there is too little of, in a 429's own words.

    `retry_after` is in seconds.
    """
    code, type_ = {
        429: ("rate_limit_exceeded", lacking),
        401: ("invalid_api_key", "invalid_request_error"),
        404: ("model_not_found", "invalid_request_error"),
    }.get(status, (None, "invalid_request_error" if status < 500 else "server_error"))
    shape = {"message": f"simulated error {status}", "type": type_, "param": None, "code": code}
    headers = {} if retry_after is None else {"retry-after": f"{retry_after:g}"}
    return Reply(status, orjson.dumps({"error": shape}), headers=headers)


def _random(behaviour: Behaviour) -> bool:
    return bool(behaviour.rate_429 or behaviour.rate_500 or behaviour.rate_hang or behaviour.latency_p95_ms > 0)


def _latency(behaviour: Behaviour, asked: dict[str, Any], rng: random.Random | None) -> float:
    fixed = asked.get("latency_ms")
    if isinstance(fixed, int | float):
        return min(max(fixed, 0.0), _LONGEST_LATENCY_MS) / 1000
    median, p95 = behaviour.latency_ms, behaviour.latency_p95_ms
    if rng is None or p95 <= median or median <= 0:
        return median / 1000
    drawn = rng.lognormvariate(math.log(median), math.log(p95 / median) / _P95)
    return min(drawn, _LONGEST_LATENCY_MS) / 1000


def _planned(plan: Any, latency: float) -> Reply:
    match plan:
        case {"status": int(status)} if 400 <= status <= 599:
            after = plan.get("retry_after")
            return replace(
                refusal(status, retry_after=after if isinstance(after, int | float) else None), latency=latency
            )
        case "hang" | "reset" | "truncate":
            return Reply(200, b'{"id": "chatcmpl-', latency, fault=plan)
        case "html":
            headers = {"content-type": "text/html"}
            return Reply(200, b"<html><body>502 Bad Gateway</body></html>", latency, headers)
        case "error_in_200":
            return Reply(200, refusal(500).body, latency)
        case _:
            return refusal(400)


def _too_long(most: int, prompt: int, latency: float) -> Reply:
    shape = {
        "message": f"This model's maximum context length is {most} tokens. However, your messages resulted in {prompt} "
        "tokens. Please reduce the length of the messages.",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length_exceeded",
    }
    return Reply(400, orjson.dumps({"error": shape}), latency)


def _chat(body: dict[str, Any], asked: dict[str, Any], same: str, prompt: int, said: Any) -> dict[str, Any]:
    most = body.get("max_completion_tokens") or body.get("max_tokens")
    most = most if isinstance(most, int) and most > 0 else None
    text, finish = _answer(body, most), "stop"
    message: dict[str, Any] = {"role": "assistant", "content": text}
    match body.get("response_format"):
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            message["content"] = text = orjson.dumps(imitation.instance(schema, text)).decode()
        case {"type": "json_object"}:
            message["content"] = text = orjson.dumps({"answer": text}).decode()
    if isinstance(said, str):
        message["content"] = text = said
    if calls := imitation.tool_calls(body, text, same):
        message, finish = {"role": "assistant", "content": None, "tool_calls": calls}, "tool_calls"
    used = asked.get("output_tokens")
    if not isinstance(used, int) or not 0 <= used <= 10**6:
        used = tokens.count(text, _COUNTED_AS).tokens
    if most is not None and most < used:
        words = text.split()
        message["content"], used, finish = " ".join(words[: max(1, len(words) * most // used)]), most, "length"
    return {
        "id": f"chatcmpl-{same[:24]}",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": body.get("model"),
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": used, "total_tokens": prompt + used},
    }


def _streamed(
    body: dict[str, Any], asked: dict[str, Any], answer: dict[str, Any], latency: float, broken: Any
) -> Reply:
    options = body.get("stream_options")
    shown = imitation.chunks(answer, include_usage=isinstance(options, dict) and bool(options.get("include_usage")))
    pieces = [b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in shown] + [b"data: [DONE]\n\n"]
    if broken is not None:
        pieces = pieces[: len(pieces) // 2]
    if broken == "stream_error":
        pieces.append(b"data: " + refusal(500).body + b"\n\n")
    pause = asked.get("chunk_ms")
    return Reply(
        200,
        b"",
        latency,
        {"content-type": "text/event-stream"},
        "break" if broken == "break" else None,
        tuple(pieces),
        between=min(max(pause, 0.0), _LONGEST_LATENCY_MS) / 1000 if isinstance(pause, int | float) else 0.0,
        tokens=answer["usage"]["total_tokens"],
    )


def _answer(body: dict[str, Any], most_tokens: int | None) -> str:
    messages = body.get("messages")
    told = [one for one in messages if isinstance(one, dict)] if isinstance(messages, list) else []
    users = [tokens.text_of(one) for one in told if one.get("role") == "user"]
    last = users[-1] if users else ""
    instructions = [tokens.text_of(one) for one in told if one.get("role") in ("system", "developer")]
    if any("summar" in text[:2_000].lower() for text in (last, *instructions)):
        head, _, rest = last.partition("\n\n")
        text = rest if len(rest) > len(head) else last  # without the instruction before it
        if len(text.split()) > SUMMARY_WORDS // 2:
            # A word is about four thirds of a token.
            return summary(text, words=min(SUMMARY_WORDS, (most_tokens or 10**6) * 3 // 4))
    words = last.split()
    return f"You said {len(words)} words, beginning with: {' '.join(words[:12])[:200]}"


def summary(text: str, *, words: int = SUMMARY_WORDS) -> str:
    """Return the sentences of a text that say most of it, in their order, of about `words` words together.

    A sentence counts by the frequencies of its words in the text, stopwords apart; an early one counts a little more.
    Half sentences, where a text was cut, are left out.
    """
    every = [" ".join(one.split()) for one in _SENTENCE_END.split(text)]
    sentences = [one for one in every if _is_whole(one)] or every
    held = [[word for word in _WORD.findall(one.lower()) if word not in _STOPWORDS] for one in sentences]
    weight = Counter(word for one in held for word in one)
    scores = [
        (sum(weight[word] for word in set(one)) / (len(one) + 8) * (1.15 if at < 5 else 1.0), at)
        for at, one in enumerate(held)
    ]
    chosen: list[int] = []
    length = 0
    for _, at in sorted(scores, key=lambda score: (-score[0], score[1])):
        size = len(sentences[at].split())
        if not chosen or length + size <= words:
            chosen.append(at)
            length += size
        if length > words * 0.8:
            break
    said = " ".join(sentences[at] for at in sorted(chosen))
    return " ".join(said.split()[: max(words, _LONGEST_SENTENCE)])[: 12 * SUMMARY_WORDS]


def _is_whole(sentence: str) -> bool:
    begins, ends = sentence.lstrip("\"'(["), sentence.rstrip("\"')]")
    return (
        6 <= len(sentence.split()) <= _LONGEST_SENTENCE and not begins[:1].islower() and ends.endswith((".", "!", "?"))
    )


def _embeddings(behaviour: Behaviour, body: dict[str, Any], prompt: int, latency: float) -> Reply:
    answer = imitation.embeddings(body, prompt, seed=behaviour.seed)
    if answer is None:
        return replace(refusal(400), latency=latency)
    return Reply(200, orjson.dumps(answer), latency, tokens=prompt)
