"""`sluice doctor`: checks what the gateway stands on, and says what to do about each fault."""

import asyncio
import os
import re
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import typer

MOST_SKEW_SECONDS = 2.0
DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked; `fix` says what to do where it is not good."""

    subject: str
    good: bool
    found: str
    fix: str = ""


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(doctor)


def doctor(json: bool = typer.Option(False, "--json", help="print the findings as JSON")) -> None:
    """Check configuration, keys, Postgres, migrations, Redis and clocks; exit 1 where something is wrong."""
    from shared.cli import output

    findings = asyncio.run(_examine())
    if json:
        output.as_json([{"subject": f.subject, "good": f.good, "found": f.found, "fix": f.fix} for f in findings])
    else:
        for finding in findings:
            print(f"{'ok   ' if finding.good else 'FAULT'}  {finding.subject}: {finding.found}")
            if not finding.good:
                print(f"       -> {finding.fix}")
    sys.exit(0 if all(finding.good for finding in findings) else 1)


async def _examine() -> list[Finding]:
    from shared import settings
    from shared.errors import ConfigError

    try:
        chosen = settings.load(**of_running())
    except ConfigError as error:
        return [Finding("environment", good=False, found=str(error), fix="correct the variable")]
    findings = [Finding("environment", good=True, found="every variable can be used"), *_configuration(chosen.config)]
    if chosen.database_url is None or chosen.redis_url is None:
        fix = "start `sluice up`, or set SLUICE_DATABASE_URL and SLUICE_REDIS_URL"
        return [*findings, Finding("servers", good=False, found="no URL is known", fix=fix)]
    findings += [finding async for finding in _postgres(chosen.database_url)]
    findings += [finding async for finding in _redis(chosen.redis_url)]
    findings += [finding async for finding in _deployments(chosen.config, chosen.redis_url)]
    return findings


def of_running() -> dict[str, object]:
    """Return the addresses that `sluice up` left in its data directory, as far as the environment has none."""
    path = Path(os.environ.get("SLUICE_DATA_DIR", ".sluice")) / "env"
    found = dict(re.findall(r"^export SLUICE_(\w+)='(.*)'$", path.read_text(), re.MULTILINE)) if path.exists() else {}
    return {
        name.lower(): value
        for name, value in found.items()
        if name in ("DATABASE_URL", "REDIS_URL") and f"SLUICE_{name}" not in os.environ
    }


def _configuration(path: Path) -> list[Finding]:
    from shared import config
    from shared.errors import ConfigError

    try:
        found = config.load(path, os.environ)
    except ConfigError as error:
        return [Finding("configuration", good=False, found=str(error), fix="correct the lines named")]
    findings = [Finding("configuration", good=True, found=found.source)]
    for name, provider in found.providers.items():
        local = provider.base_url is not None or provider.kind == "simulated"
        findings.append(
            Finding(
                f"keys of {name}",
                good=bool(provider.keys) or local,
                found=f"{len(provider.keys)} key(s)",
                fix=f"give providers.{name}.keys a key, or the variable it names a value",
            )
        )
    return findings


async def _postgres(url: str) -> AsyncIterator[Finding]:
    from shared.db import alerts, engine, inspect, migrate
    from shared.errors import SluiceError

    database = engine.create(url, pool_size=1, name="sluice-doctor")
    try:
        async with engine.transaction(database) as connection:
            before, seen = time.time(), await inspect.server(connection)
            revision = await migrate.current(connection)
            raised = await alerts.counts(connection, seconds=DAY_SECONDS) if revision == migrate.latest() else {}
    except (SluiceError, OSError) as error:
        fix = "see that the server runs and SLUICE_DATABASE_URL is right"
        yield Finding("Postgres", good=False, found=f"{error}: {error.__cause__}"[:300], fix=fix)
        return
    finally:
        await database.dispose()
    yield Finding("Postgres", good=seen.version >= 15, found=f"version {seen.version}", fix="Sluice needs 15 or newer")
    yield Finding("migrations", good=revision == migrate.latest(), found=str(revision), fix="run `sluice migrate`")
    if raised:
        listed = ", ".join(f"{kind} ({number})" for kind, number in raised.items())
        yield Finding("alerts", good=True, found=f"in the last day {listed}; `sluice alerts` shows them")
    yield _clock("Postgres", seen.now - (before + time.time()) / 2)
    yield Finding(
        "durability",
        good=seen.synchronous_commit != "off" and seen.fsync == "on",
        found=f"synchronous_commit {seen.synchronous_commit}, fsync {seen.fsync}",
        fix="a 202 must mean that the job is on disk: turn both on",
    )


async def _redis(url: str) -> AsyncIterator[Finding]:
    from shared import queue

    redis = queue.connect(url)
    try:
        before = time.time()
        seconds, micros = await redis.time()
        skew = seconds + micros / 1e6 - (before + time.time()) / 2
        about = await redis.info()
    except queue.RedisAway as error:
        fix = "see that the server runs and SLUICE_REDIS_URL is right"
        yield Finding("Redis", good=False, found=str(error)[:300], fix=fix)
        return
    finally:
        await redis.aclose(close_connection_pool=True)
    version = str(about.get("valkey_version") or about["redis_version"])
    yield Finding(
        "Redis", good=int(version.split(".")[0]) >= 7, found=f"version {version}", fix="Sluice needs 7 or newer"
    )
    policy = str(about.get("maxmemory_policy"))
    fix = "CONFIG SET maxmemory-policy noeviction: any other drops queued jobs under memory pressure"
    yield Finding("Redis eviction", good=policy == "noeviction", found=policy, fix=fix)
    yield _clock("Redis", skew)


async def _deployments(path: Path, url: str) -> AsyncIterator[Finding]:
    """Yield a finding for every key that its provider refuses, and for every circuit that is open."""
    from shared import config, queue
    from shared.errors import ConfigError
    from shared.limits import deployments_json

    redis = queue.connect(url)
    try:
        line = queue.Queue(redis)
        for name, provider in config.load(path, os.environ).providers.items():
            states = await line.survey(name, await line.lanes(name), limits=deployments_json(provider))
            for lane, one in ((lane, one) for lane, state in states.items() for one in state.deployments):
                where = f"{name}/{lane}" + (f", key {one.key}" if one.key else "")
                if one.health == "out":
                    fix = f"the provider refuses it: give providers.{name}.keys another value, or see to the account"
                    yield Finding(f"key at {where}", good=False, found="refused", fix=fix)
                elif one.health == "open":
                    fix = "see whether the provider is up; jobs wait, or go to their fallbacks, until it answers again"
                    yield Finding(f"provider at {where}", good=False, found="its calls fail", fix=fix)
    except (ConfigError, *queue.RedisAway):
        return  # it has been said
    finally:
        await redis.aclose(close_connection_pool=True)


def _clock(whose: str, skew: float) -> Finding:
    return Finding(
        f"clock of {whose}",
        good=abs(skew) <= MOST_SKEW_SECONDS,
        found=f"{skew:+.3f} s from ours",
        fix="have the machines keep time by NTP",
    )
