"""Files over HTTP: what goes in comes out, whatever is wrong leaves nothing behind, and strangers see none of it."""

import asyncio
import gzip
import io
import os
import random
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import openai
import orjson
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from gateway_api import reading, uploading
from shared import ids
from shared.errors import ApiError
from tests.api.conftest import MOST_BYTES, MOST_FILE_BYTES, Tenant, fetch_row, new_tenant
from tests.commands import sluice_command
from tests.gateway import ADMIN_KEY, Gateway, line, until

BOUNDARY = "5eb63bbbe01eeed0"


def part(name: str, body: bytes, *, filename: str | None = None, more: str = "") -> bytes:
    named = f'; filename="{filename}"' if filename is not None else ""
    return (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}{more}\r\n\r\n'.encode() + body + b"\r\n"
    )


END = f"--{BOUNDARY}--\r\n".encode()
PURPOSE = part("purpose", b"batch")


def file(body: bytes, name: str = "in.jsonl") -> bytes:
    return part("file", body, filename=name)


async def post(tenant: Tenant, body: Any, **headers: str) -> tuple[int, Any]:
    sent = {
        "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
        "X-Sluice-Tenant": tenant.name,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    data = io.BytesIO(body) if isinstance(body, bytes) else body
    async with tenant.api.client.post(tenant.api.url + "/v1/files", data=data, headers=sent) as answer:
        return answer.status, orjson.loads(await answer.read())


async def upload(tenant: Tenant, body: bytes = b"{}\n", *, purpose: bytes = b"batch", name: str = "in.jsonl") -> Any:
    status, made = await post(tenant, part("purpose", purpose) + file(body, name) + END)
    assert status == 200, made
    return made


async def content(tenant: Tenant, id_: str, query: str = "", **headers: str) -> tuple[int, bytes, Any]:
    sent = {"X-Sluice-Tenant": tenant.name, **headers}
    url = f"{tenant.api.url}/v1/files/{id_}/content{query}"
    async with tenant.api.client.get(url, headers=sent) as answer:
        return answer.status, await answer.read(), answer.headers


async def left(tenant: Tenant) -> tuple[int, int]:
    """Return how many files a tenant has, and how many parts belong to no file."""
    row = await fetch_row(
        tenant.api,
        "SELECT (SELECT count(*) FROM files WHERE tenant_id = $1), (SELECT count(*) FROM file_parts WHERE NOT EXISTS "
        "(SELECT 1 FROM files f WHERE f.id = file_id))",
        tenant.id,
    )
    return row[0], row[1]


async def row_of(tenant: Tenant, shown: Any) -> Any:
    return await fetch_row(tenant.api, "SELECT * FROM files WHERE id = $1", UUID(shown["id"].removeprefix("file_")))


@pytest.mark.parametrize("size", [0, 1, 2**20 - 1, 2**20, 2**20 + 1, MOST_BYTES + 500_000, MOST_FILE_BYTES])
async def test_what_goes_in_comes_out(tenant: Tenant, size: int) -> None:
    body = random.Random(size).randbytes(size)  # with all that may look like a boundary's beginning
    made = await upload(tenant, body)
    assert made["bytes"] == size
    status, read, headers = await content(tenant, made["id"], Accept="text/x-nothing")
    assert (status, read == body) == (200, True)
    assert (headers["Content-Length"], headers["Content-Type"]) == (str(size), "application/octet-stream")


async def test_a_file_is_shown_as_openais(tenant: Tenant) -> None:
    made = await upload(tenant)
    assert made == {
        "id": made["id"],
        "object": "file",
        "bytes": 3,
        "created_at": made["created_at"],
        "expires_at": None,
        "filename": "in.jsonl",
        "purpose": "batch",
        "status": "processed",
        "status_details": None,
    }
    assert isinstance(made["created_at"], int)
    assert (await tenant.ask("GET", f"/v1/files/{made['id']}"))[:2] == (200, made)


@pytest.mark.parametrize(
    ("body", "lines"), [(b"", 0), (b"a", 1), (b"a\n", 1), (b"a\nb", 2), (b"\n\n", 2), (b"x\n" * 70_000 + b"y", 70_001)]
)
async def test_lines_are_counted(tenant: Tenant, body: bytes, lines: int) -> None:
    assert (await row_of(tenant, await upload(tenant, body)))["lines"] == lines


@pytest.mark.parametrize("file_first", [True, False])
async def test_fields_stand_in_any_order(tenant: Tenant, file_first: bool) -> None:
    fields = part("expires_after[seconds]", b"3600") + PURPOSE + part("expires_after[anchor]", b"created_at")
    status, made = await post(tenant, file(b"a\n") + fields + END if file_first else fields + file(b"a\n") + END)
    assert (status, made["expires_at"] - made["created_at"]) == (200, 3600)


BAD = {
    "no file": (PURPOSE + END, "file"),
    "no purpose": (file(b"a") + END, "purpose"),
    "nothing": (END, "file"),
    "unknown purpose": (part("purpose", b"fun") + file(b"a") + END, "purpose"),
    "unknown purpose behind": (file(b"a") + part("purpose", b"fun") + END, "purpose"),
    "no text": (part("purpose", b"\xff\0") + file(b"a") + END, "purpose"),
    "a long field": (part("purpose", b"x" * 100_000) + file(b"a") + END, "purpose"),
    "two files": (PURPOSE + file(b"a") + file(b"b") + END, "file"),
    "two purposes": (PURPOSE + PURPOSE + file(b"a") + END, "purpose"),
    "unknown field": (PURPOSE + part("colour", b"red") + file(b"a") + END, "colour"),
    "too soon": (file(b"a") + part("expires_after[seconds]", b"3599") + END, "expires_after[seconds]"),
    "too late": (part("expires_after[seconds]", b"2592001") + END, "expires_after[seconds]"),
    "no number": (part("expires_after[seconds]", "३६००".encode()) + END, "expires_after[seconds]"),
    "no anchor": (PURPOSE + file(b"a") + part("expires_after[seconds]", b"3600") + END, "expires_after"),
    "another anchor": (part("expires_after[anchor]", b"yesterday") + END, "expires_after[anchor]"),
    "no end": (PURPOSE + file(b"a"), None),
    "cut off": (PURPOSE + file(b"abc" * 1000)[:-40], None),
    "no form": (b"hello", None),
    "empty": (b"", None),
    "form in a form": (
        f"--{BOUNDARY}\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\na\r\n--x--\r\n".encode() + END,
        None,
    ),
    "a head without end": (f"--{BOUNDARY}\r\nX: ".encode() + b"a" * 100_000, None),
    "many heads": (f"--{BOUNDARY}\r\n".encode() + b"X: y\r\n" * 1_000, None),
}


@pytest.mark.parametrize("case", BAD)
async def test_a_bad_form_leaves_nothing(tenant: Tenant, case: str) -> None:
    body, param = BAD[case]
    status, answer = await post(tenant, body)
    assert (status, answer["error"]["param"]) == (400, param), answer
    assert await left(tenant) == (0, 0)


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data", "multipart/form-data; boundary=", "?"])
async def test_another_content_type_is_refused(tenant: Tenant, kind: str) -> None:
    status, _ = await post(tenant, PURPOSE + file(b"a") + END, Content_Type=kind)
    assert status == 400
    assert await left(tenant) == (0, 0)


async def test_a_file_that_is_too_large_leaves_nothing(tenant: Tenant) -> None:
    body = PURPOSE + file(b"x" * (MOST_FILE_BYTES + 1)) + END
    for sent in (body, _streamed(body)):  # told beforehand, and found out
        status, answer = await post(tenant, sent)
        assert (status, answer["error"]["code"]) == (413, "file_too_large")
        assert await left(tenant) == (0, 0)


async def test_a_compressed_body_is_as_large_as_what_it_holds(tenant: Tenant) -> None:
    form = PURPOSE + file(b"a\n" * 1_000_000) + END
    status, made = await post(tenant, gzip.compress(form), Content_Encoding="gzip")
    assert (status, made["bytes"]) == (200, 2_000_000)
    bomb = gzip.compress(PURPOSE + file(b"\0" * 500_000_000) + END, 1)
    before = rss(tenant.api)
    status, _ = await post(tenant, bomb, Content_Encoding="gzip")
    assert status == 413
    assert rss(tenant.api) - before < 50_000_000
    status, _ = await post(tenant, b"no gzip", Content_Encoding="gzip")
    assert status == 400
    assert (await left(tenant))[0] == 1


def rss(api: Gateway) -> int:
    pid = api.children["api"].pid
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _streamed(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def test_a_client_that_leaves_leaves_nothing(api: Gateway, tenant: Tenant) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", api.port)
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_KEY}\r\nX-Sluice-Tenant: {tenant.name}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: 2900000\r\n\r\n"
    )
    writer.write(head.encode() + PURPOSE + file(b"x" * 2_500_000))

    async def written() -> int:
        query = "SELECT count(*) FROM file_parts JOIN files ON id = file_id WHERE tenant_id = $1"
        return int((await fetch_row(api, query, tenant.id))[0])

    await until(written)
    listed = (await tenant.ask("GET", "/v1/files"))[1]
    assert listed["data"] == []  # what is being written is not there yet
    writer.close()
    await writer.wait_closed()
    await until(lambda: left(tenant), lambda found: found == (0, 0))


async def test_an_upload_that_stalls_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "READ_SECONDS", 0.01)
    with pytest.raises(ApiError) as stalled:
        await uploading._arriving(asyncio.Event().wait())
    assert stalled.value.status == 408


async def test_names_are_made_safe(tenant: Tenant) -> None:
    for given, shown in {
        "../../etc/passwd": "passwd",
        "C:\\\\docs\\\\in.jsonl": "in.jsonl",
        "päper 语.jsonl": "päper 语.jsonl",
        "a\u202eb.txt": "a_b.txt",
        "x" * 400: "x" * 255,
        "dir/": "file",
        "": "file",
    }.items():
        made = await upload(tenant, name=given)
        assert made["filename"] == shown, given
        status, _, headers = await content(tenant, made["id"])
        assert (status, headers["Content-Disposition"].count('"')) == (200, 2)
    status, made = await post(tenant, PURPOSE + part("file", b"a") + END)
    assert (status, made["filename"]) == (200, "file")


async def test_lists_are_paged_filtered_and_ordered(tenant: Tenant) -> None:
    made = [(await upload(tenant, purpose=b"batch" if n % 2 else b"user_data"))["id"] for n in range(5)]

    async def ids_of(query: str) -> tuple[list[str], bool]:
        status, page, _ = await tenant.ask("GET", f"/v1/files?{query}")
        assert status == 200, page
        found = [one["id"] for one in page["data"]]
        assert (page["first_id"], page["last_id"]) == ((found[0], found[-1]) if found else (None, None))
        return found, page["has_more"]

    assert await ids_of("") == (made[::-1], False)
    assert await ids_of("limit=2") == ([made[4], made[3]], True)
    assert await ids_of(f"limit=2&after={made[3]}") == ([made[2], made[1]], True)
    assert await ids_of(f"limit=2&after={made[1]}") == ([made[0]], False)
    assert await ids_of(f"order=asc&limit=2&after={made[0]}") == ([made[1], made[2]], True)
    assert await ids_of("purpose=batch&order=asc") == ([made[1], made[3]], False)
    assert await ids_of("purpose=nothing") == ([], False)
    assert (await ids_of("limit=10000"))[0] == made[::-1]
    for query in ("limit=0", "limit=10001", "order=up", "after=x", "after=job_" + "0" * 32):
        assert (await tenant.ask("GET", f"/v1/files?{query}"))[0] == 400, query


async def test_a_deleted_file_is_gone(tenant: Tenant) -> None:
    made = await upload(tenant)
    status, answer, _ = await tenant.ask("DELETE", f"/v1/files/{made['id']}")
    assert (status, answer) == (200, {"id": made["id"], "object": "file", "deleted": True})
    await gone(tenant, made["id"])
    assert await left(tenant) == (0, 0)


async def gone(tenant: Tenant, id_: str) -> None:
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        status, answer, _ = await tenant.ask(method, f"/v1/files/{id_}{path}")
        assert (status, answer["error"]["code"]) == (404, "file_not_found")
    assert (await tenant.ask("GET", "/v1/files"))[1]["data"] == []


async def test_nobody_sees_a_neighbours_file(tenant: Tenant, neighbour: Tenant) -> None:
    made = await upload(tenant)
    await gone(neighbour, made["id"])
    assert (await content(tenant, made["id"]))[1] == b"{}\n"
    assert (await tenant.ask("GET", "/v1/files/" + made["id"].replace("_", "-")))[0] == 404


async def test_an_expired_file_is_gone_at_once(tenant: Tenant) -> None:
    made = await upload(tenant)
    await fetch_row(tenant.api, "UPDATE files SET expires_at = now() WHERE tenant_id = $1 RETURNING id", tenant.id)
    await gone(tenant, made["id"])


async def test_a_file_whose_batch_is_being_validated_stays(tenant: Tenant) -> None:
    made = await upload(tenant)
    batch = await fetch_row(
        tenant.api,
        "INSERT INTO batches (id, tenant_id, endpoint, status, total, metadata, input_file_id, validating_until) "
        "VALUES ($1, $2, '/v1/chat/completions', 'validating', 0, '{}', $3, now() + interval '1 hour') RETURNING id",
        UUID(bytes=secrets.token_bytes(16)),
        tenant.id,
        UUID(made["id"].removeprefix("file_")),
    )
    status, answer, _ = await tenant.ask("DELETE", f"/v1/files/{made['id']}")
    assert (status, answer["error"]["code"]) == (409, "file_in_use")
    await fetch_row(tenant.api, "UPDATE batches SET status = 'failed', finished_at = now() WHERE id = $1", batch["id"])
    assert (await tenant.ask("DELETE", f"/v1/files/{made['id']}"))[0] == 200


async def test_content_that_is_missing_is_said(tenant: Tenant) -> None:
    made, other = await upload(tenant, b"x" * 2_500_000), await upload(tenant, b"x" * 2_500_000)
    query = "DELETE FROM file_parts WHERE file_id = $1 AND number >= $2"
    await fetch_row(tenant.api, query, UUID(made["id"].removeprefix("file_")), 0)
    status, answer, _ = await content(tenant, made["id"])
    assert (status, orjson.loads(answer)["error"]["code"]) == (500, "file_content_missing")
    await fetch_row(tenant.api, query, UUID(other["id"].removeprefix("file_")), 1)
    with pytest.raises(Exception, match="payload"):  # a part of it is never taken for the whole
        await content(tenant, other["id"])
    await fetch_row(tenant.api, "UPDATE files SET storage = 's3' WHERE tenant_id = $1 RETURNING id", tenant.id)
    status, answer, _ = await content(tenant, made["id"])
    assert (status, b"`s3`, which is not configured" in answer) == (503, True)


async def test_the_files_of_a_batchs_results_are_read_from_its_jobs(tenant: Tenant) -> None:
    _, batch, _ = await tenant.ask("POST", "/v1/batches", {"requests": [line(), line()]})
    job = await fetch_row(
        tenant.api,
        "UPDATE jobs SET status = 'cancelled', finished_at = now(), batch_sequence = 1 WHERE id = ("
        "SELECT id FROM jobs WHERE tenant_id = $1 ORDER BY id LIMIT 1) RETURNING id, batch_id",
        tenant.id,
    )
    for holds in ("output", "errors"):
        made = await fetch_row(
            tenant.api,
            "INSERT INTO files (id, tenant_id, filename, purpose, storage, batch_id, holds) "
            "VALUES ($1, $2, 'out.jsonl', 'batch_output', 'batch', $3, $4) RETURNING id",
            ids.new_id(),
            tenant.id,
            job["batch_id"],
            holds,
        )
        id_ = ids.show("file", made["id"])
        status, read, headers = await content(tenant, id_)
        assert (status, "Content-Length" in headers, len(read.splitlines())) == (200, False, int(holds == "errors"))
        assert (await content(tenant, id_, "?order=input"))[:2] == (200, read)
        _, shown, _ = await tenant.ask("GET", f"/v1/files/{id_}")
        assert (shown["bytes"], shown["purpose"]) == (len(read), "batch_output")
        assert (await tenant.ask("DELETE", f"/v1/files/{id_}"))[0] == 200
        assert (await content(tenant, id_))[0] == 404
    assert (await tenant.ask("GET", f"/v1/batches/{batch['id']}"))[0] == 200


async def test_only_results_have_an_order(tenant: Tenant) -> None:
    made = await upload(tenant)
    for order in ("input", "up", ""):
        assert (await content(tenant, made["id"], f"?order={order}"))[0] == 400


async def test_head(tenant: Tenant) -> None:
    made = await upload(tenant, b"x" * 1_500_000)
    url = f"{tenant.api.url}/v1/files/{made['id']}/content"
    async with tenant.api.client.head(url, headers={"X-Sluice-Tenant": tenant.name}) as answer:
        assert (answer.status, answer.headers["Content-Length"]) == (200, "1500000")


@pytest_asyncio.fixture
async def sdk(api: Gateway) -> AsyncIterator[AsyncOpenAI]:
    tenant = await new_tenant(api)
    named = {"X-Sluice-Tenant": tenant.name}
    async with AsyncOpenAI(base_url=api.url + "/v1", api_key=ADMIN_KEY, default_headers=named, max_retries=0) as made:
        yield made


async def test_the_official_sdk(sdk: AsyncOpenAI, tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_bytes(b'{"a": 1}\n')
    made = await sdk.files.create(file=path, purpose="batch", expires_after={"anchor": "created_at", "seconds": 7200})
    assert (made.filename, made.bytes, made.expires_at) == ("requests.jsonl", 9, made.created_at + 7200)
    assert (await sdk.files.wait_for_processing(made.id)).status == "processed"
    assert await sdk.files.retrieve(made.id) == made
    more = [await sdk.files.create(file=("b.txt", b"b"), purpose="user_data") for _ in range(4)]
    assert [one.id async for one in sdk.files.list(limit=2)] == [one.id for one in (*more[::-1], made)]
    assert (await sdk.files.content(made.id)).content == b'{"a": 1}\n'
    async with sdk.files.with_streaming_response.content(made.id) as streamed:
        assert await streamed.read() == b'{"a": 1}\n'
    assert (await sdk.files.delete(made.id)).deleted
    with pytest.raises(openai.NotFoundError):
        await sdk.files.retrieve(made.id)


async def test_the_command_line(api: Gateway, tenant: Tenant, tmp_path: Path) -> None:
    async def run(*arguments: str, code: int = 0) -> str:
        found, out, err = await sluice_command(api, tmp_path, "files", *arguments, "--tenant", tenant.name)
        assert found == code, err
        return out if code == 0 else err

    path, copy = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_bytes(b"{}\n" * 500_000)
    made = orjson.loads(await run("upload", str(path), "--expires-after", "2h", "--json"))
    assert made["expires_at"] - made["created_at"] == 7200
    assert made["id"] in await run("list", "--purpose", "batch")
    assert "1,500,000" in await run("show", made["id"])
    await run("download", made["id"], "--out", str(copy))
    assert copy.read_bytes() == path.read_bytes()
    assert "{}" in await run("download", made["id"])
    assert orjson.loads(await run("delete", made["id"], "--json"))["deleted"] is True
    assert "No such file" in await run("download", made["id"], "--out", str(tmp_path / "none"), code=1)
    assert not (tmp_path / "none").exists()
