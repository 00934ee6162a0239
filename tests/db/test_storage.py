"""Every storage does the same: Postgres, a directory, and S3 as a server of this machine imitates it."""

import asyncio
import random
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio
from aiobotocore.session import get_session
from sqlalchemy import text

from shared import ids
from shared.config_files import Files
from shared.db import engine as db
from shared.db import files
from shared.errors import Unavailable
from shared.storage import Storage, Storages, create
from shared.storage.parts import Missing
from shared.storage.s3 import S3
from tests.gateway import until
from workers import remove_files
from workers.remove_files import remove_gone

SIZES = (0, 1, 2**20, 3 * 2**20 + 1, 20 * 2**20)


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [sys.executable, "-c", f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            child.kill()


async def _s3(url: str) -> Files:
    found = Files.model_validate(
        {"storage": "s3", "bucket": "sluice-files", "endpoint_url": url, "region": "us-east-1"}
        | {"access_key_id": "a", "secret_access_key": "b"}
    )

    async def up() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True

    await until(up)
    session = get_session()
    async with session.create_client(
        "s3", region_name="us-east-1", endpoint_url=url, aws_access_key_id="a", aws_secret_access_key="b"
    ) as client:
        await client.create_bucket(Bucket="sluice-files")
    return found


@pytest_asyncio.fixture(params=["postgres", "disk", "s3"])
async def storages(request: pytest.FixtureRequest, engine: db.Engine, tmp_path: Path) -> AsyncIterator[Storages]:
    match request.param:
        case "s3":
            found = await _s3(request.getfixturevalue("s3_url"))
        case "disk":
            found = Files(storage="disk", path=tmp_path / "not" / "yet")
        case _:
            found = Files()
    made = create(found, engine)
    yield made
    await made.aclose()


async def streamed(body: bytes, *, then: Exception | None = None) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 100_000):
        yield body[start : start + 100_000]
    if then is not None:
        raise then


async def whole(storage: Storage, id_: UUID) -> bytes:
    return b"".join([piece async for piece in storage.read(id_)])


async def test_what_is_written_is_read(storages: Storages) -> None:
    storage = storages.chosen
    for size in SIZES:
        id_, body = ids.new_id(), random.Random(size).randbytes(size)
        await storage.write(id_, streamed(body))
        assert await whole(storage, id_) == body, size
        await storage.delete(id_)
        with pytest.raises(Missing):
            await whole(storage, id_)
        await storage.delete(id_)


async def test_what_broke_off_is_not_there(storages: Storages, tmp_path: Path) -> None:
    storage, id_ = storages.chosen, ids.new_id()
    with pytest.raises(ConnectionResetError):
        await storage.write(id_, streamed(b"x" * 18_000_000, then=ConnectionResetError()))
    if isinstance(storage, S3):
        assert await uploads(storage) == 0
        client = await storage._connected()
        await client.create_multipart_upload(**storage._named(id_))  # as a process that died leaves it
        assert await uploads(storage) == 1
    if storage.name != "postgres":
        with pytest.raises(Missing):
            await whole(storage, id_)
    await storage.delete(id_)
    with pytest.raises(Missing):
        await whole(storage, id_)
    if isinstance(storage, S3):
        assert await uploads(storage) == 0
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def uploads(storage: S3) -> int:
    """Return how many objects are said to be still on their way."""
    found = await (await storage._connected()).list_multipart_uploads(Bucket="sluice-files")
    return len(found.get("Uploads", ()))


async def test_readers_do_not_disturb_each_other(storages: Storages) -> None:
    storage, id_, body = storages.chosen, ids.new_id(), random.Random(1).randbytes(5_000_000)
    await storage.write(id_, streamed(body))
    assert await asyncio.gather(*(whole(storage, id_) for _ in range(4))) == [body] * 4
    async for _ in storage.read(id_):
        break  # a reader that leaves
    assert await whole(storage, id_) == body


async def test_a_storage_that_is_away_is_said(engine: db.Engine, tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_bytes(b"")
    away = [Files(storage="disk", path=in_the_way)]
    s3 = {"storage": "s3", "bucket": "some", "endpoint_url": "http://127.0.0.1:9", "region": "r"}
    away += [Files.model_validate(s3 | {"access_key_id": "a", "secret_access_key": "b"})]
    for found in away:
        storages = create(found, engine)
        with pytest.raises(Unavailable, match="the file storage is not available"):
            await storages.chosen.write(ids.new_id(), streamed(b"x"))
        await storages.aclose()


async def _file(engine: db.Engine, storages: Storages, *, finished: bool = True, more: str = "") -> UUID:
    id_, storage = ids.new_id(), storages.chosen
    async with db.transaction(engine) as connection:
        await files.insert(connection, id_, "default", storage=storage.name)
    await storage.write(id_, streamed(b"body"))
    if finished:
        async with db.transaction(engine) as connection:
            written = {"filename": "f", "purpose": "batch", "bytes_": 4, "lines": 1}
            await files.finish(connection, "default", id_, **written, expires_after=None)  # type: ignore[arg-type]
    if more:
        async with db.transaction(engine) as connection:
            await connection.execute(text(f"UPDATE files SET {more} WHERE id = :id"), {"id": id_})
    return id_


async def test_maintenance_removes_what_is_over(
    storages: Storages, engine: db.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remove_files, "PAGE", 2)
    kept = [
        await _file(engine, storages),
        await _file(engine, storages, more="expires_at = now() + interval '1 hour'"),
        await _file(engine, storages, finished=False, more="created_at = now() - interval '23 hours'"),
    ]
    elsewhere = (
        await _file(engine, storages, more="storage = 'disk', deleted_at = now()")
        if (storages.chosen.name != "disk")
        else None
    )
    over = [
        await _file(engine, storages, more="expires_at = now()"),
        await _file(engine, storages, more="deleted_at = now()"),
        await _file(engine, storages, finished=False, more="created_at = now() - interval '25 hours'"),
        await _file(engine, storages, more="deleted_at = now() - interval '1 hour'"),
        await _file(engine, storages, more="expires_at = now() - interval '1 hour'"),
    ]
    assert await remove_gone(engine, storages) == len(over)
    async with db.transaction(engine) as connection:
        left = (await connection.execute(text("SELECT id FROM files ORDER BY id"))).scalars().all()
    assert left == [*kept, *([elsewhere] if elsewhere else [])]
    for id_ in over:
        with pytest.raises(Missing):
            await whole(storages.chosen, id_)
    for id_ in kept:
        assert await whole(storages.chosen, id_) == b"body"
    assert await remove_gone(engine, storages) == 0


async def test_the_name_of_a_batchs_results_is_removed(engine: db.Engine) -> None:
    async with db.transaction(engine) as connection:
        await connection.execute(
            text(
                "INSERT INTO files (id, tenant_id, filename, purpose, storage, batch_id, holds, created_at, deleted_at)"
                " SELECT gen_random_uuid(), 'default', 'o', 'batch_output', 'batch', gen_random_uuid(), 'output',"
                " now() - interval '2 days', deleted FROM (VALUES (now()), (NULL)) AS of (deleted)"
            )
        )
    assert await remove_gone(engine, create(Files(), engine)) == 1
