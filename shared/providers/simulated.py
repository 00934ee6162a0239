"""The simulated provider: OpenAI's dialect, spoken by `shared/embedded/upstream.py`. No model, no key, no network."""

from shared.providers.openai import completion, error, faults, listing, request, stream

DEFAULT_BASE_URL = "http://127.0.0.1:9099/v1"
ROUTES = frozenset({"/v1/chat/completions", "/v1/embeddings"})

__all__ = ["DEFAULT_BASE_URL", "ROUTES", "completion", "error", "faults", "listing", "request", "stream"]
