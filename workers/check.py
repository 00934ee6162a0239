"""Answers that must fit their request's JSON schema: checked before they count, and asked for again where they do not.

The checks themselves run in child processes (`workers/checking.py`), which a schema may keep busy, or kill. Whom that
delays is the tenant who sent it: each has one child at a time, so that there is another for the others.
"""

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from hashlib import sha256
from typing import Any
from weakref import WeakValueDictionary

import orjson
import structlog

from shared import ids, tokens
from shared.db.claims import Claim
from shared.lifecycle import Invalid, Outcome
from shared.output_schema import answers_of, asked_again, schema_of
from shared.providers import Completion
from workers.checking import FITS, UNUSABLE, framed

log = structlog.get_logger(__name__)

_CHILDREN = 2
_PATIENCE_SECONDS = 20.0
"""For a machine that is overloaded, and a child to begin: what a check itself may take is limited in the child."""
_LONGEST_TURN = 30.0
_REMEMBERED_SECONDS, _MOST_REMEMBERED = 300.0, 1_000
_KEPT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH")
"""What a child needs of the environment to begin. The providers' keys are there too, and no business of its."""
_LONGEST_ANSWER = 100_000
_BYTES_PER_TOKEN = 4


class Unchecked(Exception):
    """An answer that nobody can say of whether it fits; the message says why."""


class _TooMuch(Unchecked):
    """The check ended its child, or outlasted our patience."""

    def __init__(self) -> None:
        super().__init__("to check that takes more time or memory than there is")


class Checker:
    """The children that hold answers against schemas, of each tenant one question at a time. Close it in the end."""

    def __init__(self) -> None:
        # Who was asked last is asked next: the second child is begun only when both are needed.
        self._free: asyncio.LifoQueue[_Child] = asyncio.LifoQueue()
        for _ in range(_CHILDREN):
            self._free.put_nowait(_Child())
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._too_much: dict[tuple[str, bytes], float] = {}

    async def words(self, tenant: str, schema: Any, answers: list[str]) -> str | None:
        """Return why an answer does not fit a tenant's schema, None where all do.

        Raises Unchecked where that cannot be found out; a schema of which that is known is not tried again for a while.
        """
        shape = orjson.dumps(schema)
        known_by = (tenant, sha256(shape).digest())
        question = framed(orjson.dumps({"schema": orjson.Fragment(shape), "answers": answers}))
        async with self._turn(tenant):
            if time.monotonic() < self._too_much.get(known_by, 0.0):
                raise _TooMuch
            child = await self._free.get()
            try:
                return await child.words(question)
            except _TooMuch:
                self._too_much.pop(known_by, None)
                self._too_much[known_by] = time.monotonic() + _REMEMBERED_SECONDS
                if len(self._too_much) > _MOST_REMEMBERED:
                    del self._too_much[next(iter(self._too_much))]
                raise
            finally:
                self._free.put_nowait(child)

    async def close(self) -> None:
        """End the children. Nobody asks them any more."""
        while not self._free.empty():
            await self._free.get_nowait().end()

    @asynccontextmanager
    async def _turn(self, tenant: str) -> AsyncIterator[None]:
        turn = self._turns.setdefault(tenant, asyncio.Lock())  # there while somebody has it or waits for it
        try:
            async with asyncio.timeout(_LONGEST_TURN):
                await turn.acquire()
        except TimeoutError as error:
            raise Unchecked("the checks of other answers take too long") from error
        try:
            yield
        finally:
            turn.release()


class _Child:
    """A process that answers one question at a time: begun with its first one, and again where it ended."""

    def __init__(self) -> None:
        self._process: Process | None = None

    async def words(self, question: bytes) -> str | None:
        """Ask, as `checking.main` reads it: return why an answer does not fit, None where all do. Raises Unchecked."""
        while True:
            used = self._process is not None
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    verdict, words = await self._ask(self._process or await self._begin(), question)
            except (TimeoutError, EOFError, OSError) as error:
                ended = await self.end()
                # Else earlier questions may have left it little memory, or it had ended before.
                if not used or ended == -signal.SIGPROF:
                    raise _TooMuch from error
            except BaseException:  # what it would tell yet is no answer to the next question
                await self.end()
                raise
            else:
                if verdict == UNUSABLE:
                    raise Unchecked(f"the schema cannot be used: {words}")
                return None if verdict == FITS else words

    async def _begin(self) -> Process:
        try:
            # In a session of its own: what ends the worker by its terminal must not end its last checks.
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "workers.checking",
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                env={name: os.environ[name] for name in _KEPT if name in os.environ},
                start_new_session=True,
            )
        except OSError as error:
            raise Unchecked("there is nobody who could check it") from error
        return self._process

    async def _ask(self, process: Process, question: bytes) -> tuple[bytes, str]:
        asked, told = process.stdin, process.stdout
        assert asked is not None
        assert told is not None
        asked.write(question)
        await asked.drain()
        verdict = await told.readexactly(1)
        if verdict == FITS:
            return verdict, ""
        try:
            words = (await told.readexactly(int.from_bytes(await told.readexactly(4), "little"))).decode()
        except asyncio.IncompleteReadError:
            await self.end()
            words = "to find out where takes too long"
        return verdict, words

    async def end(self) -> int | None:
        """End the process, if there is one; return its exit status, negative the signal that ended it."""
        process, self._process = self._process, None
        if process is None:
            return None
        with suppress(ProcessLookupError):
            process.kill()
        return await process.wait()


def asks_for_schema(claim: Claim) -> bool:
    """Tell whether a job's answer may have to fit a schema, without reading its body."""
    return b'"json_schema"' in claim.body


async def checked(checker: Checker, claim: Claim, outcome: Outcome) -> Outcome:
    """Return what an attempt came to, `Invalid` where its answer does not fit the schema of its request."""
    if not isinstance(outcome, Completion):
        return outcome
    schema = schema_of(claim.url, orjson.loads(claim.body))
    answers = [] if schema is None else answers_of(claim.url, orjson.loads(outcome.body))
    if not answers:
        return outcome
    try:
        words = await checker.words(claim.tenant_id, schema, answers)
    except Unchecked as unchecked:
        log.warning("answer.not_checked", job=ids.show("job", claim.id))
        return Invalid(outcome, str(unchecked), None)
    if words is None:
        return outcome
    shown = "\n\n".join(answers).encode(errors="replace")[:_LONGEST_ANSWER]
    return Invalid(outcome, words, shown.decode(errors="ignore"))


async def continued(claim: Claim) -> Claim:
    """Return a claimed job as it is asked: continued with its last answer where that did not fit its schema."""
    if claim.repair is None:
        return claim
    body, repair = orjson.loads(claim.body), orjson.loads(claim.repair)
    grown = asked_again(claim.url, body, repair["answer"], repair["words"])
    added = asked_again(claim.url, {"messages": [], "input": []}, repair["answer"], repair["words"])
    bound = claim.input_bound
    if bound is not None:
        bound += await asyncio.to_thread(tokens.most_input, added, [claim.upstream_model])
    size = len(orjson.dumps(added)) // _BYTES_PER_TOKEN
    return replace(claim, body=orjson.dumps(grown), input_bound=bound, input_estimate=claim.input_estimate + size)
