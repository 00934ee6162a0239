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
from shared.cli.resume import State, append, save, state_path

PATIENCE = 600.0


class Submission:
    """One run over a results file: its state, saved at each step, is where the next run goes on."""

    def __init__(self, out: Path, file: BinaryIO, state: State) -> None:
        self.state = state
        self._file = file
        self._saved_at = state_path(out)
        self._batches: dict[int, Json] = {}
        self._had_ended: dict[int, bool] = {}

    @property
    def tally(self) -> Tally:
        """What the batches added up to when they were last looked at."""
        return Tally.of(self._batches.values())

    @property
    def spent_before(self) -> bool:
        """Whether every batch had ended before this run, which so has cost nothing."""
        return all(self._had_ended.get(index, False) for index in range(len(self.state.parts)))

    @property
    def batches_failed(self) -> list[str]:
        """The batches with jobs that failed, in the file's order."""
        parts = enumerate(self.state.parts)
        return [
            part.batch_id
            for index, part in parts
            if index in self._batches and self._batches[index]["request_counts"]["failed"]
        ]

    async def run(
        self, address: Address, path: Path, survey: Survey, *, defaults: Defaults, progress: Progress | None
    ) -> None:
        """Submit the file's chunks; with `progress`, also write every result. Raises CliError."""
        try:
            async with Client(address, patience=PATIENCE, on_wait=note) as client, asyncio.TaskGroup() as group:
                for index, chunk in enumerate(survey.chunks):
                    if index >= len(self.state.parts):
                        body = await asyncio.to_thread(chunk_body, path, chunk, defaults)
                        batch = await client.post(
                            "/v1/batches", body, idempotency_key=f"{survey.digest}{self.state.again}-{index}"
                        )
                        self._had_ended[index] = batch["status"] in ENDED  # it is of an earlier run
                        self._keep(self.state.submitted(batch["id"]))
                    if progress is not None:
                        group.create_task(self._collect(client, index, progress))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _collect(self, client: Client, index: int, progress: Progress) -> None:
        part = self.state.parts[index]
        async for batch, lines in client.follow(part.batch_id, after=part.cursor):
            self._had_ended.setdefault(index, batch["status"] in ENDED)
            if lines:
                size = append(self._file, lines)
                self._keep(self.state.wrote(index, cursor=lines[-1]["cursor"], size=size))
            self._batches[index] = batch
            if len(self._batches) == len(self.state.parts):  # else what was done before would count as sudden speed
                progress.show(self.tally)

    def _keep(self, state: State) -> None:
        save(self._saved_at, state)
        self.state = state
