"""Summarize a long book in ONE submit: its parts at once, then groups of their summaries, then the whole.

Every line of the batch that needs the answers of others names them in `depends_on` and has `{{jobs.NAME.output}}` where
they belong; the gateway does the waiting. One batch, one cost, one webhook. Only the standard library is spoken to it.

    python examples/book.py BOOK.txt --url http://127.0.0.1:8080 --model gpt-5-mini
"""

import argparse
import http.client
import json
import os
import sys
import textwrap
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import corpus
from rich.console import Console
from summarize import SYSTEM, Wish, answer

from shared.cli.client import Address, CliError, find_address
from shared.cli.output import clean
from shared.cli.progress import Progress, Tally, duration, money

Json = dict[str, Any]

WHOLE = "whole"
MOST_TOGETHER = 20
"""How many summaries one request puts together."""
TIMEOUT = 60.0
"""Seconds of silence; a quiet stream of events says every 15 s that it is alive."""
MOST_BREAKS = 20


def plan(parts: Sequence[str], wish: Wish) -> list[Json]:
    """Return the lines of a batch that summarizes parts, then groups of their summaries, then all of it as `WHOLE`."""
    if len(parts) == 1:
        return [line(WHOLE, parts[0], wish)]
    lines = [line(f"part-{number}", text, wish) for number, text in enumerate(parts, 1)]
    names, level = [one["custom_id"] for one in lines], 1
    while len(names) > MOST_TOGETHER:
        level += 1
        groups = [names[start : start + MOST_TOGETHER] for start in range(0, len(names), MOST_TOGETHER)]
        together = [joined(f"level-{level}-{number}", group, wish) for number, group in enumerate(groups, 1)]
        names = [one["custom_id"] for one in together]
        lines += together
    return [*lines, joined(WHOLE, names, wish)]


def joined(name: str, needs: Sequence[str], wish: Wish) -> Json:
    """Return a line that summarizes what others answer."""
    text = "\n\n".join(f"{{{{jobs.{one}.output}}}}" for one in needs)
    return line(name, text, wish) | {"depends_on": list(needs)}


def line(name: str, text: str, wish: Wish) -> Json:
    """Return a line that summarizes a text; what all lines share is in the batch's `defaults`."""
    said = f"Summarize the following text in at most {wish.summary_words} words.\n\n{text}"
    body = {"messages": [{"role": "user", "content": said}], "max_completion_tokens": wish.max_tokens}
    return {"custom_id": name, "body": body}


def post(address: Address, path: str, body: Json, **headers: str) -> Json:
    """Post JSON and return the answer. Raises CliError."""
    headers = {"Content-Type": "application/json", **headers}
    with opened(address, path, headers, json.dumps(body).encode()) as response:
        made: Json = json.load(response)
    return made


def opened(address: Address, path: str, headers: dict[str, str], data: bytes | None = None) -> Any:
    """Return the open answer of a request. Raises CliError where it is refused, OSError where nobody answers."""
    request = urllib.request.Request(address.url + path, data, {"Authorization": f"Bearer {address.key}", **headers})
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as refused:
        with refused:
            raise CliError(f"{refused.code}: {refused.read(2_000).decode(errors='replace')}") from None


def follow(address: Address, batch: str) -> Iterator[tuple[str, Json]]:
    """Yield a batch's events until its end, which is the last; a broken connection goes on where it was."""
    last, breaks = "0", 0
    while True:
        try:
            with opened(address, f"/v1/batches/{batch}/events", {"Last-Event-ID": last}) as stream:
                for event, id_, data in events(stream):
                    last, breaks = id_ or last, 0
                    yield event, data
                    if event not in ("result", "batch.progress"):
                        return
        except (OSError, http.client.HTTPException) as error:
            if breaks >= MOST_BREAKS:
                raise CliError(f"the gateway is gone: {error}") from error
        breaks += 1
        time.sleep(min(breaks, 5))


def events(stream: Iterable[bytes]) -> Iterator[tuple[str, str, Json]]:
    """Yield (event, id, data) of server-sent events."""
    fields: dict[str, str] = {}
    for raw in stream:
        name, _, value = raw.decode().rstrip("\n").partition(": ")
        if raw == b"\n":
            if "data" in fields:
                yield fields.get("event", ""), fields.get("id", ""), json.loads(fields["data"])
            fields = {}
        elif name:
            fields[name] = value


def summarize(address: Address, text: str, wish: Wish, *, webhook: str | None, console: Console) -> int:
    """Summarize a text and print what came of it; return the exit code, 1 where there is no summary."""
    began = time.monotonic()
    lines = plan(corpus.split(text, wish.context_words), wish)
    asked: Json = {"requests": lines, "defaults": {"model": wish.model, "system": SYSTEM}}
    if webhook:
        asked["webhook"] = {"url": webhook}
    batch = post(address, "/v1/batches", asked, **{"Idempotency-Key": str(uuid.uuid4())})
    console.print(f"{len(text.split()):,} words, {len(lines)} requests, one batch: {batch['id']}", highlight=False)
    results: dict[str, Json] = {}
    with Progress("Book", total=len(lines), console=console) as progress:
        for event, data in follow(address, batch["id"]):
            if event == "result":
                results[data["custom_id"]] = data
            else:
                batch = data
                progress.show(Tally.of([batch]))
    return show(batch, results, time.monotonic() - began, console)


def show(batch: Json, results: dict[str, Json], seconds: float, console: Console) -> int:
    """Print the summary, or what went wrong, and the totals; return the exit code."""

    def say(text: str, style: str = "") -> None:
        console.print(clean(text), style=style, markup=False, highlight=False, soft_wrap=True)

    faults = {name: fault for name, one in results.items() if (fault := answer(one)[1])}
    summary = "" if WHOLE in faults or WHOLE not in results else answer(results[WHOLE])[0]
    if summary:
        say("\n" + textwrap.fill(" ".join(summary.split()), min(console.width, 110)))
    else:
        say(f"\nFAILED: the batch is {batch['status']}", "red")
        for name, fault in list(faults.items())[:5]:
            say(f"    {name}: {fault}", "red")
        say(f"Run again what failed, and what waited for it:  sluice batches retry {batch['id']}")
    tally = Tally.of([batch])
    tokens = f"{tally.input_tokens:,} tokens in, {tally.output_tokens:,} out"
    say(f"\n{tally.done:,} jobs · {tokens} · {money(tally.cost)} · {duration(seconds)}", "bold")
    return 0 if summary else 1


def book(path: Path) -> str:
    """Return the text of a file, or of a folder's documents one after the other."""
    return path.read_text(errors="replace") if path.is_file() else "\n\n".join(one.text for one in corpus.read(path))


def main() -> int:
    """Read the options and run."""
    wish = Wish(model="")
    parser = argparse.ArgumentParser(description="Summarize a long book through a Sluice gateway in one submit.")
    parser.add_argument("book", type=Path, nargs="?", default=Path(__file__).parent / "documents")
    parser.add_argument("--url", help="the gateway (default: SLUICE_URL, or port SLUICE_PORT of this machine)")
    parser.add_argument("--key", help="the key (default: SLUICE_API_KEY, or this machine's admin key)")
    parser.add_argument("--model", default=os.environ.get("MODEL"), help="a model the gateway serves (default: MODEL)")
    parser.add_argument("--part-words", type=int, default=wish.context_words, help="how long a part is at most")
    parser.add_argument("--summary-words", type=int, default=wish.summary_words)
    parser.add_argument("--max-tokens", type=int, default=wish.max_tokens, help="of an answer, reasoning included")
    parser.add_argument("--webhook", metavar="URL", help="who is told when the batch has ended")
    given = parser.parse_args()
    if not given.model:
        parser.error("name a model with --model or MODEL")
    wish = Wish(given.model, given.part_words, given.summary_words, given.max_tokens)
    try:
        text = book(given.book)
        if not text.split():
            raise CliError(f"{given.book} is empty")
        address = find_address(os.environ, url=given.url, key=given.key)
        return summarize(address, text, wish, webhook=given.webhook, console=Console())
    except (CliError, OSError) as error:
        print(f"book: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
