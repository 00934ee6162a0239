"""Reading an upload: a multipart form, fields in any order and one file, of which a piece is held at a time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from aiohttp import BodyPartReader, hdrs, web
from aiohttp.http import HttpProcessingError

from gateway_api import reading
from shared.errors import ApiError

T = TypeVar("T")

PURPOSES = ("assistants", "batch", "evals", "fine-tune", "user_data", "vision")
SHORTEST, LONGEST = 3_600, 2_592_000
"""The seconds after which a caller may have a file expire."""
LONGEST_FILENAME = 255

_PIECE = 2**17
_FORM_BYTES = 2**16
"""What a form has besides its file."""
_FIELD_BYTES = 1_024
_SECONDS, _ANCHOR = "expires_after[seconds]", "expires_after[anchor]"
_BROKEN = (ValueError, AssertionError, RuntimeError, HttpProcessingError, web.RequestPayloadError)
"""What aiohttp raises where a body is no multipart form, or ends in the middle of one."""


@dataclass(slots=True)
class Upload:
    """What has been read: the fields by name, and of the file how much it was."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    bytes: int = 0
    lines: int = 0

    @property
    def expires_after(self) -> int | None:
        """The seconds the file is wanted for."""
        return int(self.fields[_SECONDS]) if _SECONDS in self.fields else None


async def read(request: web.Request, most: int, keep: Callable[[AsyncIterator[bytes]], Awaitable[None]]) -> Upload:
    """Read a form, giving its file to `keep` as it comes.

    Raises ApiError: 400 for a form that is not what it should be, 408 for one that stalls, 413 for a file of more than
    `most` bytes.
    """
    if request.content_type != "multipart/form-data":
        raise ApiError(400, "A file is uploaded as multipart/form-data.", param="Content-Type")
    if (request.content_length or 0) > most + _FORM_BYTES and hdrs.CONTENT_ENCODING not in request.headers:
        raise _too_large(most)
    upload = Upload()
    form = await _arriving(request.multipart())
    while (part := await _arriving(form.next())) is not None:
        if not isinstance(part, BodyPartReader):
            raise ApiError(400, "A part of the form is itself a multipart form.")
        if part.name == "file" and upload.filename is None:
            upload.filename = _filename(part.filename)
            await keep(_content(part, upload, most))
        elif part.name in _CHECKS and part.name not in upload.fields:
            text = upload.fields[part.name] = await _text(part)
            _CHECKS[part.name](text)
        elif part.name in ("file", *_CHECKS):
            raise ApiError(400, f"{part.name} is there twice.", param=part.name)
        else:
            raise ApiError(400, "The form has a field that is none of an upload's.", param=(part.name or "")[:100])
    _check_complete(upload)
    return upload


async def _content(part: BodyPartReader, upload: Upload, most: int) -> AsyncIterator[bytes]:
    last = b"\n"
    while piece := await _arriving(part.read_chunk(_PIECE)):
        upload.bytes += len(piece)
        if upload.bytes > most:
            raise _too_large(most)
        upload.lines += piece.count(b"\n")
        last = piece[-1:]
        yield piece
    upload.lines += last != b"\n"


async def _text(part: BodyPartReader) -> str:
    read = b""
    while piece := await _arriving(part.read_chunk(_FIELD_BYTES)):
        read += piece
        if len(read) > _FIELD_BYTES:
            raise ApiError(400, f"{part.name} is too long.", param=part.name)
    return read.decode("utf-8", "replace").strip()


async def _arriving(coming: Awaitable[T]) -> T:
    """Return what of the body is waited for."""
    try:
        async with asyncio.timeout(reading.READ_SECONDS):
            return await coming
    except TimeoutError:
        raise ApiError(408, f"Nothing of the body arrived for {reading.READ_SECONDS} seconds.") from None
    except _BROKEN:
        raise ApiError(400, "The body is not a complete multipart form.", code="invalid_form") from None


def check_purpose(text: str) -> None:
    """Raise ApiError 400 for a purpose that no file has."""
    if text not in PURPOSES:
        raise ApiError(400, f"purpose must be one of {', '.join(PURPOSES)}.", param="purpose")


def _check_anchor(text: str) -> None:
    if text != "created_at":
        raise ApiError(400, f"{_ANCHOR} must be created_at.", param=_ANCHOR)


def _check_seconds(text: str) -> None:
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not SHORTEST <= int(text) <= LONGEST:
        raise ApiError(400, f"{_SECONDS} must be a whole number from {SHORTEST} to {LONGEST}.", param=_SECONDS)


_CHECKS: dict[str, Callable[[str], None]] = {
    "purpose": check_purpose,
    _ANCHOR: _check_anchor,
    _SECONDS: _check_seconds,
}


def _check_complete(upload: Upload) -> None:
    missing = [
        name for name, there in (("file", upload.filename), ("purpose", upload.fields.get("purpose"))) if not there
    ]
    if missing:
        raise ApiError(
            400, f"The form lacks {' and '.join(missing)}.", param=missing[0], code="missing_required_parameter"
        )
    if (_ANCHOR in upload.fields) != (_SECONDS in upload.fields):
        raise ApiError(400, f"{_ANCHOR} and {_SECONDS} stand together.", param="expires_after")


def _filename(text: str | None) -> str:
    """Return a file's name as it is stored: no path, nothing that cannot be shown."""
    name = (text or "").replace("\\", "/").rpartition("/")[2]
    return "".join(one if one.isprintable() else "_" for one in name)[:LONGEST_FILENAME] or "file"


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"A file may have {most:,} bytes.", code="file_too_large", param="file")
