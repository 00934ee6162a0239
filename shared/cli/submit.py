"""`sluice submit`: a file of requests in, a file of results out, and what a person sees meanwhile.

Exit codes: 0 all completed, 1 nothing could be done, 2 some jobs failed, 130 interrupted.
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from shared.cli.calls import Url

if TYPE_CHECKING:
    from shared.cli.lines import Defaults, Survey
    from shared.cli.progress import Tally
    from shared.cli.submission import Submission

SOME_FAILED = 2
INTERRUPTED = 130
MOST_COMMANDS = 10
STDIN = Path("-")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("submit")(submit)


def submit(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help='JSON lines: OpenAI batch lines, bare bodies, or {"prompt": …}; - is standard input'
        ),
    ],
    model: Annotated[str | None, typer.Option(help="the model of lines that name none")] = None,
    out: Annotated[Path | None, typer.Option(help="where results go (default: FILE.results.jsonl)")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="write results as they come, or only submit")] = True,
    priority: Annotated[
        Literal["interactive", "standard", "bulk"] | None, typer.Option(help="the priority of lines that name none")
    ] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="print what it would cost, and send nothing")] = False,
    again: Annotated[bool, typer.Option("--again", help="submit it though it was before, with another --out")] = False,
    url: Url = None,
) -> None:
    """Submit a file of requests and write the results as they come. Run it again after an interruption: it resumes."""
    from shared.cli.lines import Defaults

    out = out or Path("results.jsonl" if file == STDIN else f"{file.with_suffix('').name}.results.jsonl")
    try:
        with _readable(file) as path:
            if estimate:
                _estimate(path, Defaults(model, priority), url=url)
                return
            tally = _run(path, out, Defaults(model, priority), wait=wait, again=again, url=url)
    except KeyboardInterrupt:
        typer.echo("\nInterrupted. Run the same command again to go on where it stopped.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if tally.failed:
        raise typer.Exit(SOME_FAILED)


def _run(path: Path, out: Path, defaults: "Defaults", *, wait: bool, again: bool, url: str | None) -> "Tally":
    import asyncio
    import os
    import time

    from shared.cli.client import find_address
    from shared.cli.lines import survey
    from shared.cli.progress import Progress
    from shared.cli.resume import load, opened, state_path
    from shared.cli.submission import Submission

    began = time.monotonic()
    address = find_address(os.environ, url=url)
    surveyed = survey(path, defaults)
    before = load(state_path(out))
    if before is None or before.digest != surveyed.digest:  # else it was sent, and a deadline in it may have passed
        _refuse_faults(surveyed)
    with opened(out, surveyed.digest, again=again) as (file, state):
        submission = Submission(out, file, state)
        kept = len(state.parts)
        if kept:
            typer.echo(f"Resuming: {kept} of {len(surveyed.chunks)} batches were submitted.", err=True)
        with Progress("Running", total=surveyed.lines) if wait else contextlib.nullcontext() as progress:
            asyncio.run(submission.run(address, path, surveyed, defaults=defaults, progress=progress))
    if wait:
        _show(submission, out, seconds=time.monotonic() - began)
    elif kept == len(surveyed.chunks):
        typer.echo("Submitted before; nothing new was sent. Run the same command without --no-wait for its results.")
    else:
        typer.echo(f"Submitted {surveyed.lines:,} requests. Run the same command without --no-wait for their results.")
    if not wait:
        for part in submission.state.parts:
            typer.echo(part.batch_id)
    return submission.tally


def _estimate(path: Path, defaults: "Defaults", *, url: str | None) -> None:
    from shared.cli import estimate
    from shared.cli.lines import survey

    surveyed = survey(path, defaults)
    _refuse_faults(surveyed)
    estimate.show(path, surveyed, defaults, url=url)


def _refuse_faults(surveyed: "Survey") -> None:
    from shared.cli.client import CliError

    if surveyed.faults:
        for fault in surveyed.faults:
            typer.echo(fault, err=True)
        raise CliError("nothing was sent: correct the faults above")


def _show(submission: "Submission", out: Path, *, seconds: float) -> None:
    from shared.cli.failures import commonest
    from shared.cli.output import facts, note
    from shared.cli.progress import duration, money

    tally, before = submission.tally, submission.spent_before
    facts(
        {
            "completed": f"{tally.completed:,}",
            "failed": f"{tally.failed:,}",
            "cost": money(tally.cost) + (" (spent before)" if before else ""),
            "tokens": f"{tally.input_tokens:,} in, {tally.output_tokens:,} out",
            "time": duration(seconds),
            "results": out,
        }
    )
    if before:
        note("It was submitted before; nothing new was spent. To run it anew, give --again and another --out.")
    if tally.failed and (failure := commonest(out)):
        note(f"{failure.jobs:,} of the failed: {failure.code}: {failure.message}")
    if batches := submission.batches_failed:
        note("To run the failed ones again, and then this command for their results:")
        for batch in batches[:MOST_COMMANDS]:
            note(f"  sluice jobs retry --failed --batch {batch}")
        if len(batches) > MOST_COMMANDS:
            note(f"  … and {len(batches) - MOST_COMMANDS:,} more batches")


@contextlib.contextmanager
def _readable(file: Path) -> Iterator[Path]:
    """Yield a file that can be read twice: standard input is spooled, since it cannot."""
    import shutil
    import tempfile

    from shared.cli.client import CliError

    if file != STDIN:
        if not file.is_file():
            raise CliError(f"{file} is not a file")
        yield file
        return
    with tempfile.NamedTemporaryFile(prefix="sluice-", suffix=".jsonl") as spool:
        shutil.copyfileobj(sys.stdin.buffer, spool)
        spool.flush()
        yield Path(spool.name)
