"""Whether a provider's model can do what a job asks."""

from typing import Any

from shared import catalog
from shared.catalog import Capabilities
from shared.config import Provider, capabilities_of
from shared.errors import Fault
from shared.messages import as_asked
from shared.providers import Call
from shared.schemas import ROUTES
from shared.serving import MESSAGES, serving


def unfit(
    provider: Provider, model: str, url: str, body: dict[str, Any], able: Capabilities | None = None
) -> list[Fault]:
    """Return what a provider's model cannot do of what is asked; `able` spares looking up what is known of it."""
    if url not in ROUTES:
        return []
    faults = serving(provider.kind, url).faults(Call(url, body, "", model))
    needed = [] if faults else catalog.needs(body)
    if needed and (known := able or capabilities_of(provider, model)):
        faults = catalog.lacking(known, needed)
        if url == MESSAGES:
            faults = [as_asked(fault, body) for fault in faults]
    return faults
