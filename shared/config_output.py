"""The configuration's `structured_output`: whether answers are held against their requests' JSON schemas."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class StructuredOutput(BaseModel):
    """Whether an answer is checked, and how often one that does not fit is asked for again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    check: bool = True
    repairs: Annotated[int, Field(ge=0, le=3)] = 1
