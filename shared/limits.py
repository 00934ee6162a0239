"""How much a provider takes of one key and model: what the claim keeps to."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def number(value: object) -> object:
    """Return a value that is to be a number; pydantic would take true for 1. Raises ValueError."""
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


_Positive = Annotated[float, BeforeValidator(number), Field(gt=0)]


class Limits(BaseModel):
    """What a provider takes of one key and model: requests and tokens a minute, calls at once; None is no limit known.

    `burst` is how many requests may come at once after a pause.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rpm: _Positive | None = None
    tpm: _Positive | None = None
    input_tpm: _Positive | None = None
    output_tpm: _Positive | None = None
    concurrency: Annotated[int, Field(gt=0)] | None = None
    burst: Annotated[float, BeforeValidator(number), Field(ge=1)] | None = None

    def but(self, other: "Limits") -> "Limits":
        """Return these limits with those of `other` in their place, where it has some."""
        return self.model_copy(update=other.model_dump(exclude_none=True))

    def shape(self) -> dict[str, float]:
        """Return the limits by the names that the queue's scripts have for them."""
        names = {"rpm": "r", "tpm": "t", "input_tpm": "i", "output_tpm": "o", "concurrency": "flight", "burst": "burst"}
        return {names[name]: value for name, value in self.model_dump(exclude_none=True).items()}
