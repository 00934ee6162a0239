"""The configuration's `usage`: which of the jobs' metadata is kept apart in the hourly roll-ups."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

MOST_TAGS = 10
"""Each costs a row of the roll-ups for every value, hour, model and key: they are named, and few."""

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def _tag(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("must be a metadata key of letters, digits, `_`, `.` and `-`, at most 64")
    return name


def _few(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) > MOST_TAGS:
        raise ValueError(f"must be at most {MOST_TAGS}")
    if twice := [name for index, name in enumerate(names) if name in names[:index]]:
        raise ValueError(f"names `{twice[0]}` twice")
    return names


class Usage(BaseModel):
    """What usage is added up by besides tenant, team, key, end user, model and provider: keys of jobs' metadata."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tags: Annotated[tuple[Annotated[str, AfterValidator(_tag)], ...], AfterValidator(_few)] = ()
