"""The configuration's `files`: where the content of files is kept, and for how long."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationInfo

from shared.config_values import http_url, seconds

_NEEDED = {"path": "disk", "bucket": "s3"}


def _where_chosen(value: object, info: ValidationInfo) -> object:
    storage = info.data.get("storage")
    if value is None and storage == _NEEDED[str(info.field_name)]:
        raise ValueError(f"is required where the storage is {storage}")
    return value


def _with_its_id(value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
    if (value is None) != (info.data.get("access_key_id") is None):
        raise ValueError("must stand together with access_key_id")
    return value


_DEFAULT = Field(validate_default=True)


class Files(BaseModel):
    """The storage of new files. Those in another storage are read as long as what it needs stands here too.

    Without keys, S3's are found as its other clients find them. `expires_after` is in seconds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    storage: Literal["postgres", "disk", "s3"] = "postgres"
    path: Annotated[Path | None, AfterValidator(_where_chosen), _DEFAULT] = None
    bucket: Annotated[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$")] | None,
        AfterValidator(_where_chosen),
        _DEFAULT,
    ] = None
    endpoint_url: Annotated[str, AfterValidator(http_url)] | None = None
    region: str | None = None
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9!_.*'()/-]{0,200}$")] = "sluice/"
    access_key_id: str | None = None
    secret_access_key: Annotated[SecretStr | None, AfterValidator(_with_its_id), _DEFAULT] = None
    expires_after: Annotated[Annotated[float, Field(ge=3600, le=315_360_000)] | None, BeforeValidator(seconds)] = None
