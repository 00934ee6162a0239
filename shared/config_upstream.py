"""The configuration's `models` of a provider: what its own models cost, take and can do."""

from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from shared.limits import Limits, number
from shared.pricing import Price

Count = Annotated[int, BeforeValidator(number), Field(gt=0, le=10**12)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PriceChange(_Closed):
    """A price that holds from a moment on (`2027-01-01T00:00:00Z`)."""

    since: Annotated[AwareDatetime, Field(alias="from")]
    price: Price


class UpstreamModel(_Closed):
    """A provider's own model. What is not said here is as the catalogue and the vendor's price list have it.

    `context_window` and `max_output` are in tokens; a model with `vision` takes images.
    """

    price: Price | None = None
    price_changes: tuple[PriceChange, ...] = ()
    limits: Limits = Limits()
    context_window: Count | None = None
    max_output: Count | None = None
    tools: bool | None = None
    json_schema: bool | None = None
    vision: bool | None = None

    def price_at(self, moment: datetime) -> Price | None:
        """Return the configured price of a call that ends at a moment, None where none is configured."""
        due = [one for one in self.price_changes if one.since <= moment]
        return max(due, key=lambda one: one.since).price if due else self.price
