"""What is wrong with where a webhook is to go, by its URL. Its address is judged when it is connected to."""

from gateway_api.access import Caller
from shared import webhook_url
from shared.config import Config
from shared.errors import Fault


def webhook_faults(webhook: object, config: Config, caller: Caller) -> list[Fault]:
    """Return what is wrong with where a job's or a batch's events go."""
    if not isinstance(webhook, dict) or not isinstance(webhook.get("url"), str):
        return []
    if wrong := url_fault(webhook["url"], config):
        return [Fault("webhook.url", wrong)]
    allowed = webhook_url.host_allowed(webhook["url"], caller.webhook_hosts)
    return [] if allowed else [Fault("webhook.url", webhook_url.NOT_A_HOST)]


def url_fault(url: str, config: Config) -> str | None:
    """Return what is wrong with where a webhook is to go, or None."""
    return webhook_url.fault(url, allow_http=config.webhooks.allow_http, allowed=config.webhooks.allow_private_networks)
