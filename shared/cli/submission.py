"""A submission from its first chunk to its last result: sends what was not sent, writes what has ended, in any order.

Not here: reading the file (`lines`), what is remembered (`resume`), what the person sees (`submit`, `progress`).
"""

import asyncio
from pathlib import Path
from typing import BinaryIO

from shared.cli.client import ENDED, Address, Client, Json
from shared.cli.lines import Defaults, Survey, chunk_body
from shared.cli.output import note
from shared.cli.progress import Progress, Tally
from shared.cli.results import append, is_csv
from shared.cli.resume import State, save, state_path

PATIENCE = 600.0


class Submission:
    """One run over a results file: its state, saved at each step, is where the next run goes on."""

    def __init__(self, out: Path, file: BinaryIO, state: State) -> None:
        self.state = state
        self._file = file
        self._as_csv = is_csv(out)
        self._saved_at = state_path(out)
        self._first_seen: dict[int, Json] = {}
        self._batches: dict[int, Json] = {}

    @property
    def tally(self) -> Tally:
        """What the batches added up to when they were last looked at."""
        return Tally.of(self._batches.values())

    @property
    def batches(self) -> list[Json]:
        """The batches as they were when they were last looked at, in the file's order."""
        return [self._batches[index] for index in sorted(self._batches)]

    @property
    def batches_failed(self) -> list[str]:
        """The batches with jobs that failed or expired, in the file's order."""
        counts = {batch["id"]: batch["request_counts"] for batch in self.batches}
        return [id_ for id_, count in counts.items() if count["failed"] or count["expired"]]

    @property
    def spent_before(self) -> bool:
        """Whether every batch had ended before this run, which so has cost nothing."""
        return all(batch["status"] in ENDED for batch in self._first_seen.values())

    @property
    def done(self) -> int:
        """How many jobs ended in this run."""
        return self.tally.done - Tally.of(self._first_seen.values()).done

    async def run(
        self, address: Address, path: Path, survey: Survey, *, defaults: Defaults, progress: Progress | None
    ) -> None:
        """Submit the file's chunks; with `progress`, also write every result. Raises CliError."""
        try:
            async with Client(address, patience=PATIENCE, on_wait=note) as client, asyncio.TaskGroup() as group:
                for index, chunk in enumerate(survey.chunks):
                    if index >= len(self.state.parts):
                        most = survey.share(chunk, defaults.max_cost) if defaults.max_cost is not None else None
                        body = await asyncio.to_thread(chunk_body, path, chunk, defaults, max_cost=most)
                        batch = await client.post(
                            "/v1/batches", body, idempotency_key=f"{survey.digest}{self.state.again}-{index}"
                        )
                        self._first_seen[index] = batch  # of an earlier run, where it has ended
                        self._keep(self.state.submitted(batch["id"]))
                    if progress is not None:
                        group.create_task(self._collect(client, index, progress))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _collect(self, client: Client, index: int, progress: Progress) -> None:
        part = self.state.parts[index]
        async for batch, lines in client.follow(part.batch_id, after=part.cursor):
            self._first_seen.setdefault(index, batch)
            if lines:
                size = append(self._file, lines, as_csv=self._as_csv)
                self._keep(self.state.wrote(index, cursor=lines[-1]["cursor"], size=size))
            self._batches[index] = batch
            if len(self._batches) == len(self.state.parts):  # else what was done before would count as sudden speed
                progress.show(self.tally)

    def _keep(self, state: State) -> None:
        save(self._saved_at, state)
        self.state = state
