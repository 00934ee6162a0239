"""The whole way of an event to its receiver: the examples, `sluice webhooks listen`, published libraries."""

import asyncio
import base64
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import aiohttp
import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from openai import AsyncOpenAI, BadRequestError
from standardwebhooks import Webhook

from shared import signing
from tests.chaos.test_webhooks import Receiver, receiver
from tests.commands import sluice_command, start
from tests.gateway import ADMIN_KEY, Gateway, free_port, gateway, line, until

EXAMPLES = Path(__file__).parents[2] / "examples"
PATH = "/v1/webhook_endpoints"
COMMANDS = {"receiver.py": sys.executable, "receiver.mjs": shutil.which("node")}
SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()


@pytest.fixture(scope="module")
async def sluice(
    tmp_path_factory: pytest.TempPathFactory, module_database: str, redis_url: str
) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path_factory.mktemp("receivers"), module_database, redis_url) as running:
        yield running


@asynccontextmanager
async def example(name: str, secret: str) -> AsyncIterator[tuple[str, asyncio.StreamReader]]:
    """Run an example; give its address and what it prints."""
    command = COMMANDS[name]
    if command is None:
        pytest.skip("there is no node here")
    port = free_port()
    child = await asyncio.create_subprocess_exec(
        command, str(EXAMPLES / name), str(port),
        env={**os.environ, "WEBHOOK_SECRET": secret}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip

    async def listening() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True

    try:
        await until(listening, what=name)
        assert child.stdout is not None
        yield f"http://127.0.0.1:{port}/", child.stdout
    finally:
        child.kill()
        await child.wait()


def signed(body: bytes, *, id_: str = "evt_1", at: datetime | None = None, secret: str = SECRET) -> dict[str, str]:
    return signing.headers(secret, event_id=id_, timestamp=at or datetime.now(UTC), body=body)


def event(id_: str) -> bytes:
    return json.dumps({"type": "job.completed", "data": {"id": id_, "text": "grüße"}}, ensure_ascii=False).encode()


@pytest.mark.parametrize("name", COMMANDS)
async def test_an_example_takes_what_is_signed_once_and_refuses_the_rest(name: str) -> None:
    body, now = event("job_1"), datetime.now(UTC)
    other = signing.new_secret()
    two = signing.headers(other, SECRET, event_id="evt_2", timestamp=now, body=event("job_2"))
    short = signed(body) | {"webhook-signature": "v1,AAAA v1 , v2,x"}
    sent: list[tuple[bytes, dict[str, str], int]] = [
        (body, {}, 401),
        (body, signed(body, secret=other), 401),
        (body + b" ", signed(body), 401),
        (body, signed(body, at=now - timedelta(minutes=6)), 401),
        (body, signed(body, at=now + timedelta(minutes=6)), 401),
        (body, short, 401),
        (body, signed(body), 204),
        (body, signed(body), 204),
        (event("job_2"), two, 204),
    ]
    async with example(name, SECRET) as (url, out), aiohttp.ClientSession() as client:
        for data, headers, status in sent:
            async with client.post(url, data=data, headers=headers) as answer:
                assert answer.status == status, headers
        printed = [json.loads(await asyncio.wait_for(out.readline(), 20)) for _ in range(2)]
    assert printed == [{"type": "job.completed", "id": id_} for id_ in ("job_1", "job_2")]


async def made(sluice: Gateway, url: str, **fields: Any) -> dict[str, Any]:
    asked = {"url": url, "name": "r", "event_types": ["job.completed"], **fields}
    status, answer, _ = await sluice.ask("POST", PATH, asked)
    assert status == 200, answer
    return dict(answer)


async def received(target: Receiver, count: int) -> list[tuple[dict[str, str], bytes]]:
    async def tries() -> list[tuple[dict[str, str], bytes]]:
        return [one for many in target.tries.values() for one in many]

    return await until(tries, lambda found: len(found) >= count)


async def test_events_are_verified_by_published_libraries(sluice: Gateway, tmp_path: Path) -> None:
    async with (
        receiver() as target,
        AsyncOpenAI(base_url=sluice.url + "/v1", api_key=ADMIN_KEY, max_retries=0) as client,
    ):
        token = {"Authorization": "Bearer of-theirs"}
        first = await made(sluice, f"{target.url}/ok/1", headers=token, event_types=["job.completed", "batch.failed"])
        tested = await client.webhooks.test(first["id"], event_type="batch.failed")
        assert (tested.status_code, tested.success, tested.event_type) == (204, True, "batch.failed")
        rotated = await client.webhooks.rotate_secret(first["id"], keep_old_secret_active_for_24_hours=True)
        asymmetric = await made(sluice, f"{target.url}/ok/2", signing="v1a", include_result=True)
        job = await sluice.submit()
        await sluice.ended(job)

        (sample, sample_body), *_ = found = await received(target, 3)
        assert sample["authorization"] == "Bearer of-theirs"
        unwrapped: Any = client.webhooks.unwrap(sample_body, sample, secret=first["signing_secret"])
        assert (unwrapped.type, unwrapped.data.id) == ("batch.failed", f"batch_{'0' * 32}")

        by_kind = {headers["webhook-signature"].partition(",")[0]: (headers, body) for headers, body in found[1:]}
        headers, body = by_kind["v1"]
        assert len(headers["webhook-signature"].split()) == 2
        for secret in (first["signing_secret"], rotated.signing_secret):
            assert Webhook(secret).verify(body, headers)["data"]["id"] == job

        headers, body = by_kind["v1a"]
        _, jwks, _ = await sluice.ask("GET", f"{PATH}/{asymmetric['id']}/jwks.json")
        public = base64.urlsafe_b64decode(jwks["keys"][0]["x"] + "=")
        assert signing.public_text(public) == asymmetric["public_key"]
        content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        signature = base64.b64decode(headers["webhook-signature"].removeprefix("v1a,"))
        Ed25519PublicKey.from_public_bytes(public).verify(signature, content)
        assert json.loads(body)["data"]["result"] is not None

        await client.webhooks.update(first["id"], url=f"http://127.0.0.1:{free_port()}/nobody")
        with pytest.raises(BadRequestError, match="did not answer"):
            await client.webhooks.test(first["id"], event_type="batch.failed")
        code, out, err = await sluice_command(sluice, tmp_path, "webhooks", "test", first["id"])
        assert (code, "did not answer" in err) == (1, True), out
        _, pending, _ = await sluice.ask("GET", f"{PATH}/{first['id']}")
        assert pending["failing_since"] is not None


async def test_the_listener_registers_verifies_prints_and_passes_on(sluice: Gateway, tmp_path: Path) -> None:
    async with receiver() as target:
        listener = await start(
            sluice, tmp_path, "webhooks", "listen", "--register", "--event", "job.*", "--port", "0", "--json",
            "--forward", f"{target.url}/ok/1",
        )  # fmt: skip
        assert listener.stdout is not None
        assert listener.stderr is not None
        said = (await asyncio.wait_for(listener.stderr.readline(), 30)).decode()
        address = said.split()[2]
        _, listed, _ = await sluice.ask("GET", PATH)
        assert (listed["data"][0]["url"], listed["data"][0]["enabled"]) == (address, True)
        assert listed["data"][0]["event_types"] == ["job.completed", "job.failed", "job.cancelled", "job.expired"]
        async with aiohttp.ClientSession() as client, client.post(address, data=b"{}") as answer:
            assert answer.status == 401
        job = await sluice.submit()
        printed = json.loads(await asyncio.wait_for(listener.stdout.readline(), 30))
        assert (printed["type"], printed["data"]["id"]) == ("job.completed", job)
        [(headers, body)] = await received(target, 1)
        assert (json.loads(body), headers["webhook-id"]) == (printed, printed["id"])
        listener.send_signal(signal.SIGINT)
        _, err = await asyncio.wait_for(listener.communicate(), 30)
        assert (listener.returncode, b"removed webhook_" in err) == (0, True), err
    assert address not in [one["url"] for one in (await sluice.ask("GET", PATH))[1]["data"]]


async def test_a_host_that_is_no_longer_allowed_is_not_sent_to(sluice: Gateway, module_database: str) -> None:
    _, tenant, _ = await sluice.ask("POST", "/v1/admin/tenants", {"name": "restricted"})
    named = {"X-Sluice-Tenant": "restricted"}
    async with receiver() as target:
        run_at = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
        hook = {"url": f"{target.url}/ok/1"}
        status, job, _ = await sluice.ask("POST", "/v1/jobs", line(run_at=run_at, webhook=hook), headers=named)
        assert status == 202, job
        change = {"webhook_hosts": ["hooks.example.com"]}
        assert (await sluice.ask("PATCH", f"/v1/admin/tenants/{tenant['id']}", change))[0] == 200
        connection = await asyncpg.connect(module_database, timeout=10, command_timeout=10)

        async def error() -> str | None:
            query = "SELECT answer_error FROM deliveries WHERE tenant_id = $1"
            return cast("str | None", await connection.fetchval(query, tenant["id"]))

        assert "sends no webhooks to" in (await until(error) or "")
        await connection.close(timeout=10)
        assert await target.received() == 0


async def test_the_command_line_keeps_endpoints(sluice: Gateway, tmp_path: Path) -> None:
    async def run(*arguments: str) -> dict[str, Any]:
        code, out, err = await sluice_command(sluice, tmp_path, "webhooks", *arguments, "--json")
        assert code == 0, err
        return dict(json.loads(out))

    first = await run(
        "create", "https://hooks.example.com/", "--header", "X-Env: prod", "--rpm", "60", "--event", "batch.*"
    )
    assert (first["rpm"], len(first["event_types"]), first["headers"]) == (60, 4, {"X-Env": "***"})
    for since in ("10m", str(datetime.now(UTC).date()), datetime.now(UTC).isoformat()):
        assert (await run("replay", first["id"], "--since", since, "--status", "exhausted"))["replayed"] == 0
    changed = await run("update", first["id"], "--rpm", "0", "--disable", "--name", "renamed")
    assert (changed["rpm"], changed["enabled"], changed["name"]) == (None, False, "renamed")
    rotated = await run("rotate", first["id"])
    assert rotated["old_secret_expires_at"] is not None
    assert (await run("rotate", first["id"], "--now"))["old_secret_expires_at"] is None
    code, out, _ = await sluice_command(sluice, tmp_path, "webhooks", "show", first["id"])
    assert (code, "disabled: its owner asked for it" in out) == (0, True)
    code, out, _ = await sluice_command(sluice, tmp_path, "webhooks", "list")
    assert (code, first["id"] in out) == (0, True)
    _, _, err = await sluice_command(sluice, tmp_path, "webhooks", "create", "https://hooks.example.com/")
    assert "told of job.completed, job.failed, job.cancelled, job.expired" in err
    assert (await run("delete", first["id"]))["deleted"] is True
