"""Content in a bucket of a store that speaks S3. It needs the extra `s3`."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any
from uuid import UUID

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError

from shared.config_files import Files
from shared.errors import Unavailable
from shared.storage.parts import MIB, Missing, parts

MOST_CONNECTIONS = 200
"""More than there are slow readers, usually: the next waits for one of them."""
_PART = 8 * MIB
"""S3 takes no part of less than 5 MiB but the last."""


class S3:
    """The storage `s3`. A file is there when all its parts are; those of an upload that broke off are aborted."""

    name = "s3"

    def __init__(self, files: Files) -> None:
        self._files = files
        self._opening = asyncio.Lock()
        self._open = AsyncExitStack()
        self._client: Any = None

    async def write(self, file_id: UUID, pieces: AsyncIterator[bytes]) -> None:
        """Keep the content: in one request where it is small, else in parts."""
        client, named = await self._connected(), self._named(file_id)
        coming = parts(pieces, least=_PART)
        first = await anext(coming)
        if len(first) < _PART:
            with _in_words():
                await client.put_object(**named, Body=first)
            return
        with _in_words():
            upload = {**named, "UploadId": (await client.create_multipart_upload(**named))["UploadId"]}
        try:
            stored = [await _stored(client, upload, 1, first)]
            async for part in coming:
                stored.append(await _stored(client, upload, len(stored) + 1, part))
            with _in_words():
                await client.complete_multipart_upload(**upload, MultipartUpload={"Parts": stored})
        except BaseException:
            with _in_words():
                await client.abort_multipart_upload(**upload)
            raise

    async def read(self, file_id: UUID) -> AsyncIterator[bytes]:
        """Yield the content."""
        client = await self._connected()
        with _in_words():
            body = (await client.get_object(**self._named(file_id)))["Body"]
        try:
            while True:
                with _in_words():
                    piece: bytes = await body.read(MIB)
                if not piece:
                    return
                yield piece
        finally:
            body.close()

    async def delete(self, file_id: UUID) -> None:
        """Remove the content, and the parts of an upload that a crash left."""
        client, named = await self._connected(), self._named(file_id)
        with _in_words():
            await client.delete_object(**named)
            left = await client.list_multipart_uploads(Bucket=named["Bucket"], Prefix=named["Key"])
            for upload in left.get("Uploads", ()):
                await client.abort_multipart_upload(**named, UploadId=upload["UploadId"])

    async def aclose(self) -> None:
        """Close its connections."""
        await self._open.aclose()

    def _named(self, file_id: UUID) -> dict[str, str]:
        return {"Bucket": str(self._files.bucket), "Key": f"{self._files.prefix}{file_id.hex}"}

    async def _connected(self) -> Any:
        """Return the client, which is made when it is first needed."""
        async with self._opening:
            if self._client is None:
                files, secret = self._files, self._files.secret_access_key
                with _in_words():
                    making = get_session().create_client(
                        "s3",
                        region_name=files.region,
                        endpoint_url=files.endpoint_url,
                        aws_access_key_id=files.access_key_id,
                        aws_secret_access_key=None if secret is None else secret.get_secret_value(),
                        config=_config(own_address=files.endpoint_url is not None),
                    )
                    self._client = await self._open.enter_async_context(making)
        return self._client


def _config(*, own_address: bool) -> AioConfig:
    return AioConfig(
        connect_timeout=5,
        read_timeout=60,
        max_pool_connections=MOST_CONNECTIONS,
        retries={"max_attempts": 3, "mode": "standard"},
        # What other stores than Amazon's take: the bucket in the path, and no checksums but those that must be.
        s3={"addressing_style": "path" if own_address else "auto"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )


async def _stored(client: Any, upload: dict[str, str], number: int, part: bytes) -> dict[str, Any]:
    with _in_words():
        answer = await client.upload_part(**upload, PartNumber=number, Body=part)
    return {"PartNumber": number, "ETag": answer["ETag"]}


@contextmanager
def _in_words() -> Iterator[None]:
    """Say in our words what the store says: that something is not there, or that it cannot be used."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code == "NoSuchKey":
            raise Missing from None
        raise Unavailable(f"the file storage is not available: {code}") from error
    except (BotoCoreError, aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(f"the file storage is not available: {type(error).__name__}") from error
