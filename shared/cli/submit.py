"""`sluice submit`: a file or folder of requests in, a file of results out, and what a person sees meanwhile.

Exit codes: 0 all completed, 1 nothing could be done, 2 some jobs failed, 130 interrupted.
"""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from shared.cli.calls import Url
from shared.cli.output import AsJson

if TYPE_CHECKING:
    from shared.cli.inputs import Input
    from shared.cli.lines import Defaults, Survey
    from shared.cli.submission import Submission

SOME_FAILED = 2
INTERRUPTED = 130
MOST_COMMANDS = 10


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("submit")(submit)


def submit(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|FOLDER",
            help='JSON lines (OpenAI batch lines, bare bodies, or {"prompt": …}), a .csv file, or a folder of texts; '
            "- is standard input, JSON lines",
        ),
    ],
    prompt: Annotated[
        str | None,
        typer.Option(
            help=r"what to ask of each row or file: {column} of a CSV, {text}, {name} or {path} of a file; "
            r"\n is a line break, {{ a brace. Default: a CSV's column `prompt`"
        ),
    ] = None,
    prompt_file: Annotated[Path | None, typer.Option(help="a file that holds the --prompt, taken as it is")] = None,
    system: Annotated[str | None, typer.Option(help="the system message of rows and files, or @FILE")] = None,
    glob: Annotated[
        str | None, typer.Option(help="which files of a folder, as *.txt (default: .txt .md .markdown .rst)")
    ] = None,
    model: Annotated[str | None, typer.Option(help="the model of lines that name none")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="how long answers may be, where lines say nothing")
    ] = None,
    schema: Annotated[
        Path | None, typer.Option(help="a file with the JSON schema of answers, for lines that have none")
    ] = None,
    priority: Annotated[
        Literal["interactive", "standard", "bulk"] | None, typer.Option(help="the priority of lines that name none")
    ] = None,
    deadline: Annotated[
        str | None, typer.Option(help="when lines that name none expire, counted from their acceptance: 600, 30m, 12h")
    ] = None,
    max_cost: Annotated[
        str | None, typer.Option(help="what all may cost together, in USD; shared out by lines over batches of 10,000")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            help="where results go: as CSV, if it ends in .csv; for a folder also FOLDER/, a text for each file "
            "(default: NAME.results.jsonl)"
        ),
    ] = None,
    ordered: Annotated[bool, typer.Option("--ordered", help="put the results in the input's order at the end")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="write results as they come, or only submit")] = True,
    estimate: Annotated[bool, typer.Option("--estimate", help="print what it would cost, and send nothing")] = False,
    again: Annotated[bool, typer.Option("--again", help="submit it though it was before, with another --out")] = False,
    json: AsJson = False,
    url: Url = None,
) -> None:
    """Submit requests and write the results as they come. Run it again after an interruption: it resumes."""
    from shared.cli import options
    from shared.cli.inputs import readable

    results, texts = options.places(source, out)
    defaults = options.defaults(
        model=model, priority=priority, max_tokens=max_tokens, schema=schema, deadline=deadline, max_cost=max_cost
    )
    asked = options.prompt(prompt, prompt_file, system=system, glob=glob)
    try:
        with readable(source, asked, out=results) as found:
            if estimate:
                _estimate(found, defaults, json=json, url=url)
                return
            failed = _run(
                found, results, defaults, texts=texts, wait=wait, again=again, ordered=ordered, json=json, url=url
            )
    except KeyboardInterrupt:
        typer.echo("\nInterrupted. Run the same command again to go on where it stopped.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if failed:
        raise typer.Exit(SOME_FAILED)


def _run(
    found: "Input",
    out: Path,
    defaults: "Defaults",
    *,
    texts: Path | None,
    wait: bool,
    again: bool,
    ordered: bool,
    json: bool,
    url: str | None,
) -> bool:
    """Return whether a job failed."""
    import asyncio
    import os
    import time

    from shared.cli.client import find_address
    from shared.cli.lines import custom_ids, survey
    from shared.cli.progress import Progress
    from shared.cli.results import put_in_order, write_texts
    from shared.cli.resume import load, opened, state_path
    from shared.cli.submission import Submission

    began = time.monotonic()
    address = find_address(os.environ, url=url)
    surveyed = survey(found.path, defaults, unit=found.unit)
    before = load(state_path(out))
    if before is None or before.digest != surveyed.digest:  # else it was sent, and a deadline in it may have passed
        _refuse_faults(surveyed)
    with opened(out, surveyed.digest, again=again) as (file, state):
        submission = Submission(out, file, state)
        kept = len(state.parts)
        if kept:
            typer.echo(f"Resuming: {kept} of {len(surveyed.chunks)} batches were submitted.", err=True)
        with Progress("Running", total=surveyed.lines) if wait else contextlib.nullcontext() as progress:
            asyncio.run(submission.run(address, found.path, surveyed, defaults=defaults, progress=progress))
        if wait and ordered:
            put_in_order(out, custom_ids(found.path, defaults))
        if wait and texts is not None:
            write_texts(out, texts, custom_ids(found.path, defaults))
    if wait:
        _show(submission, out, seconds=time.monotonic() - began, json=json)
    else:
        _show_submitted(submission, surveyed, new=kept < len(surveyed.chunks), json=json)
    return submission.tally.failed > 0


def _estimate(found: "Input", defaults: "Defaults", *, json: bool, url: str | None) -> None:
    from shared.cli import estimate
    from shared.cli.lines import survey

    surveyed = survey(found.path, defaults, unit=found.unit)
    _refuse_faults(surveyed)
    estimate.show(found.path, surveyed, defaults, json=json, url=url)


def _refuse_faults(surveyed: "Survey") -> None:
    from shared.cli.client import CliError

    if surveyed.faults:
        for fault in surveyed.faults:
            typer.echo(fault, err=True)
        raise CliError("nothing was sent: correct the faults above")


def _show(submission: "Submission", out: Path, *, seconds: float, json: bool) -> None:
    from shared.cli import summary
    from shared.cli.output import as_json, note
    from shared.cli.results import read

    models, failures = summary.of_records(read(out))
    found = summary.Summary(
        submission.batches,
        out,
        seconds=seconds,
        done=submission.done,
        spent_before=submission.spent_before,
        models=models,
        failures=failures,
    )
    if json:
        as_json(summary.as_object(found))
        return
    summary.show(found)
    if found.spent_before:
        note("It was submitted before; nothing new was spent. To run it anew, give --again and another --out.")
    if batches := submission.batches_failed:
        note("To run the failed ones again, and then this command for their results:")
        for batch in batches[:MOST_COMMANDS]:
            note(f"  sluice batches retry {batch}")
        if len(batches) > MOST_COMMANDS:
            note(f"  … and {len(batches) - MOST_COMMANDS:,} more batches")


def _show_submitted(submission: "Submission", surveyed: "Survey", *, new: bool, json: bool) -> None:
    from shared.cli.output import as_json

    batches = [part.batch_id for part in submission.state.parts]
    if json:
        as_json({"object": "submission", "requests": surveyed.lines, "submitted_before": not new, "batches": batches})
        return
    if new:
        typer.echo(f"Submitted {surveyed.lines:,} requests. Run the same command without --no-wait for their results.")
    else:
        typer.echo("Submitted before; nothing new was sent. Run the same command without --no-wait for its results.")
    for batch in batches:
        typer.echo(batch)
