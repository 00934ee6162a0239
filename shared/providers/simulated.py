"""The simulated provider: OpenAI's dialect, spoken by `shared/embedded/upstream.py`. No model, no key, no network."""

from shared.providers.openai import completion, error, request

DEFAULT_BASE_URL = "http://127.0.0.1:9099/v1"

__all__ = ["DEFAULT_BASE_URL", "completion", "error", "request"]
