"""Every URL on one page."""

from aiohttp import web

from gateway_api import batches, deployments, events, explain, health, jobs, models, synchronous, webhooks

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
    web.get("/v1/jobs/{id}/events", events.events, allow_head=False),
    web.post("/v1/jobs/{id}/cancel", jobs.cancel),
    web.post("/v1/jobs/{id}/retry", jobs.retry),
    web.post("/v1/routes/explain", explain.explain),
    web.post("/v1/batches", batches.create),
    web.get("/v1/batches", batches.list_),
    web.get("/v1/batches/{id}", batches.retrieve),
    web.get("/v1/batches/{id}/results", batches.results),
    web.post("/v1/batches/{id}/cancel", batches.cancel),
    web.post("/v1/chat/completions", synchronous.chat),
    web.post("/v1/chat", synchronous.chat),
    web.post("/v1/embeddings", synchronous.embeddings),
    web.post("/v1/responses", synchronous.responses),
    web.get("/v1/models", models.list_),
    web.get("/v1/models/{model:.+}", models.retrieve),
    web.get("/v1/admin/deployments", deployments.list_),
    web.get("/v1/webhook_signing_secret", webhooks.signing_secret),
]
