"""Summarize a folder of documents through a running gateway: every text at once, as batches, at the providers' pace.

A document longer than the model's context is cut into parts; their summaries are summarized in a next round, until one
text is left. Nothing here knows about rate limits, retries or providers: that is the gateway's work.

    python examples/summarize.py FOLDER --url http://127.0.0.1:8080 --model gpt-5-mini
"""

import argparse
import asyncio
import os
import sys
import textwrap
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import corpus
from corpus import Document
from rich.console import Console

from shared.cli.client import Address, Client, CliError, find_address
from shared.cli.output import clean
from shared.cli.progress import Progress, Tally, duration, money, usd

Json = dict[str, Any]

SYSTEM = "You summarize texts: faithfully, in plain words, without introduction or comment."
MOST_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of the model. `context_words` is the longest text it gets at once."""

    model: str
    context_words: int = 6_000
    summary_words: int = 60
    max_tokens: int = 2_000


@dataclass(frozen=True, slots=True)
class Work:
    """A document on its way: the texts that are left of it, what it took so far, and its summary or what went wrong."""

    document: Document
    texts: tuple[str, ...]
    parts: int
    cost: Decimal | None = Decimal(0)
    summary: str | None = None
    fault: str | None = None

    @property
    def open(self) -> bool:
        """Whether it needs another round."""
        return self.summary is None and self.fault is None


@dataclass(frozen=True, slots=True)
class Report:
    """All documents, and what their jobs add up to. `seconds` is the time it took."""

    works: tuple[Work, ...]
    tally: Tally
    seconds: float = field(default=0.0)


async def summarize(client: Client, found: Sequence[Document], wish: Wish, *, console: Console) -> Report:
    """Summarize documents in as many rounds as the longest needs. Raises CliError where the gateway refuses them."""
    began = time.monotonic()
    works = [first(document, wish) for document in found]
    batches: list[Json] = []
    for number in range(1, MOST_ROUNDS + 1):
        requests = {
            f"{work.document.name}/{number}/{part}": request(text, wish)
            for work in works
            if work.open
            for part, text in enumerate(work.texts, 1)
        }
        if not requests:
            break
        batch, lines = await run_batch(client, requests, label=f"Round {number}", console=console)
        batches.append(batch)
        works = [
            advanced(
                work, [lines[f"{work.document.name}/{number}/{part}"] for part in range(1, len(work.texts) + 1)], wish
            )
            if work.open
            else work
            for work in works
        ]
    works = [replace(work, fault="its parts' summaries did not get shorter") if work.open else work for work in works]
    return Report(tuple(works), Tally.of(batches), time.monotonic() - began)


def first(document: Document, wish: Wish) -> Work:
    """Return a document before its first round."""
    texts = tuple(corpus.split(document.text, wish.context_words))
    return Work(document, texts, len(texts), fault=None if document.words else "it is empty")


def request(text: str, wish: Wish) -> Json:
    """Return the body of one job."""
    return {
        "model": wish.model,
        "messages": [
            {"role": "system", "content": SYSTEM},
            {
                "role": "user",
                "content": f"Summarize the following text in at most {wish.summary_words} words.\n\n{text}",
            },
        ],
        "max_completion_tokens": wish.max_tokens,
    }


async def run_batch(
    client: Client, bodies: Mapping[str, Json], *, label: str, console: Console
) -> tuple[Json, dict[str, Json]]:
    """Submit bodies by custom_id as one batch; return the ended batch and its result lines by custom_id."""
    lines: dict[str, Json] = {}
    requests = [{"custom_id": name, "body": body} for name, body in bodies.items()]
    batch = made = await client.post("/v1/batches", {"requests": requests}, idempotency_key=str(uuid.uuid4()))
    with Progress(label, total=len(bodies), console=console) as progress:
        async for batch, more in client.follow(made["id"]):
            lines |= {line["custom_id"]: line for line in more}
            progress.show(Tally.of([batch]))
    return batch, lines


def advanced(work: Work, lines: Sequence[Json], wish: Wish) -> Work:
    """Return a document after a round in which each of its texts had a result line."""
    costs = [usd(line["cost_usd"]) for line in lines]
    known = [cost for cost in costs if cost is not None]
    cost = work.cost + sum(known, Decimal(0)) if work.cost is not None and len(known) == len(costs) else None
    work = replace(work, cost=cost)
    summaries = []
    for part, line in enumerate(lines, 1):
        text, fault = answer(line)
        if fault:
            where = f"part {part} of {len(lines)}: " if len(lines) > 1 else ""
            return replace(work, fault=where + fault)
        summaries.append(text)
    if len(summaries) == 1:
        return replace(work, summary=summaries[0])
    return replace(work, texts=tuple(corpus.split("\n\n".join(summaries), wish.context_words)))


def answer(line: Json) -> tuple[str, str | None]:
    """Return a result line's text, and what is wrong with it."""
    if line["error"] is not None:
        return "", f"{line['error']['code']}: {line['error']['message']}"
    try:
        choice = line["response"]["body"]["choices"][0]
        text = str(choice["message"].get("content") or "").strip()
    except (KeyError, IndexError, TypeError, AttributeError):
        return "", "the answer is no chat completion"
    return text, None if text else f"the model answered nothing (finish_reason {choice.get('finish_reason')})"


def show(report: Report, console: Console) -> None:
    """Print every document's summary or failure, and the totals."""

    def line(text: str, style: str = "") -> None:
        console.print(clean(text), style=style, markup=False, highlight=False, soft_wrap=True)

    width = min(console.width, 110) - 4
    for work in report.works:
        parts = f"{work.parts} parts" if work.parts > 1 else "1 part"
        line(f"\n{work.document.title} · {work.document.words:,} words · {parts} · {money(work.cost)}", "bold")
        told = f"FAILED: {work.fault}" if work.fault else " ".join((work.summary or "").split())
        line(textwrap.indent(textwrap.fill(told, width), "    "), "red" if work.fault else "")
    tally = report.tally
    failed = sum(work.summary is None for work in report.works)
    documents = f"{len(report.works) - failed} of {len(report.works)} documents summarized"
    tokens = f"{tally.input_tokens:,} tokens in, {tally.output_tokens:,} out"
    totals = [documents, f"{tally.done:,} jobs", tokens, money(tally.cost), duration(report.seconds)]
    line("\n" + " · ".join(totals), "bold")


def run(address: Address, found: Sequence[Document], wish: Wish) -> int:
    """Summarize documents and print the report; return the exit code, 1 where a document has no summary."""
    console = Console()

    async def session() -> Report:
        async with Client(address, patience=120) as client:
            return await summarize(client, found, wish, console=console)

    report = asyncio.run(session())
    show(report, console)
    return 0 if all(work.summary is not None for work in report.works) else 1


def main() -> int:
    """Read the options and run."""
    wish = Wish(model="")
    parser = argparse.ArgumentParser(description="Summarize a folder of documents through a Sluice gateway.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parent / "documents")
    parser.add_argument("--url", help="the gateway (default: SLUICE_URL, or port SLUICE_PORT of this machine)")
    parser.add_argument("--key", help="the key (default: SLUICE_API_KEY, or this machine's admin key)")
    parser.add_argument("--model", default=os.environ.get("MODEL"), help="a model the gateway serves (default: MODEL)")
    parser.add_argument("--limit", type=int, help="only so many documents")
    parser.add_argument("--context-words", type=int, default=wish.context_words, help="longer texts are cut into parts")
    parser.add_argument("--summary-words", type=int, default=wish.summary_words)
    parser.add_argument("--max-tokens", type=int, default=wish.max_tokens, help="of an answer, reasoning included")
    given = parser.parse_args()
    if not given.model:
        parser.error("name a model with --model or MODEL")
    if given.context_words < 4 * given.summary_words:
        parser.error("--context-words must be at least four times --summary-words")
    wish = Wish(given.model, given.context_words, given.summary_words, given.max_tokens)
    try:
        found = corpus.read(given.folder)[: given.limit]
        return run(find_address(os.environ, url=given.url, key=given.key), found, wish)
    except (CliError, OSError) as error:
        print(f"summarize: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
