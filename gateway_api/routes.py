"""Every URL on one page."""

from aiohttp import web

from gateway_api import batches, health, jobs, webhooks

OPEN = frozenset({"/", "/healthz", "/readyz"})
"""What needs no key."""

ROUTES = [
    web.get("/", health.index),
    web.get("/healthz", health.healthz),
    web.get("/readyz", health.readyz),
    web.post("/v1/jobs", jobs.create),
    web.get("/v1/jobs", jobs.list_),
    web.post("/v1/jobs/retry", jobs.retry_many),
    web.get("/v1/jobs/{id}", jobs.retrieve),
    web.get("/v1/jobs/{id}/attempts", jobs.attempts),
    web.post("/v1/jobs/{id}/cancel", jobs.cancel),
    web.post("/v1/jobs/{id}/retry", jobs.retry),
    web.post("/v1/batches", batches.create),
    web.get("/v1/batches", batches.list_),
    web.get("/v1/batches/{id}", batches.retrieve),
    web.get("/v1/batches/{id}/results", batches.results),
    web.post("/v1/batches/{id}/cancel", batches.cancel),
    web.get("/v1/webhook_signing_secret", webhooks.signing_secret),
]
