"""The vendors that speak OpenAI's dialect, and how each differs from OpenAI: data, read by `openai_compatible.py`.

A row's name is a kind of its own in the configuration. What a vendor documents as ignored or refused is in its row;
what depends on the model is not, since the vendor says so itself.
"""

from collections.abc import Set
from dataclasses import dataclass

ALONE = frozenset(
    {
        "audio",
        "function_call",
        "functions",
        "modalities",
        "prediction",
        "service_tier",
        "store",
        "verbosity",
        "web_search_options",
    }
)
"""Parameters that hardly anybody but OpenAI has: refused where a row does not say otherwise."""

UNSAID = frozenset({"metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier"})
"""Parameters that change no answer: left out where a row does not say otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """How a vendor differs from OpenAI.

    `refuses`: parameters it does not have, besides `ALONE`. `takes`: those of `ALONE` and `UNSAID` that it does have.
    `completion_limit`: it knows `max_completion_tokens`; others are sent `max_tokens`. `names`: messages may have a
    `name`. `json_schema`: answers can be held to a schema. `usage_option`: it must be asked for the usage of a stream,
    by `stream_options`. `thought`: the name it gives reasoning text in a message. `embeddings`: it has that route.
    `lists_models`: `GET /models` is free, and needs the key.
    """

    base_url: str
    refuses: Set[str] = frozenset()
    takes: Set[str] = frozenset()
    completion_limit: bool = False
    names: bool = True
    json_schema: bool = True
    usage_option: bool = True
    thought: str = "reasoning_content"
    embeddings: bool = True
    lists_models: bool = False


VENDORS: dict[str, Vendor] = {
    # Servers of one's own: https://docs.vllm.ai, https://docs.ollama.com/api/openai-compatibility,
    # https://github.com/ggml-org/llama.cpp/tree/master/tools/server, https://lmstudio.ai/docs/developer/openai-compat
    "vllm": Vendor(base_url="http://127.0.0.1:8000/v1", completion_limit=True, lists_models=True),
    "ollama": Vendor(
        base_url="http://127.0.0.1:11434/v1",
        refuses={"logit_bias", "n", "parallel_tool_calls", "tool_choice"},
        thought="reasoning",
    ),
    "llama_cpp": Vendor(base_url="http://127.0.0.1:8080/v1"),
    "lm_studio": Vendor(
        base_url="http://127.0.0.1:1234/v1", refuses={"logprobs", "n", "parallel_tool_calls", "top_logprobs"}
    ),
    # https://console.groq.com/docs/openai
    "groq": Vendor(
        base_url="https://api.groq.com/openai/v1",
        refuses={"frequency_penalty", "logit_bias", "logprobs", "n", "presence_penalty", "top_logprobs"},
        takes={"function_call", "functions", "service_tier"},
        completion_limit=True,
        names=False,
        thought="reasoning",
        embeddings=False,
        lists_models=True,
    ),
    # https://docs.together.ai/reference/chat-completions-1: `logprobs` is a number there
    "together": Vendor(
        base_url="https://api.together.xyz/v1",
        refuses={"logprobs", "top_logprobs"},
        thought="reasoning",
        lists_models=True,
    ),
    # https://docs.fireworks.ai/api-reference/post-chatcompletions
    "fireworks": Vendor(
        base_url="https://api.fireworks.ai/inference/v1", takes={"prediction", "prompt_cache_key", "service_tier"}
    ),
    # https://api-docs.deepseek.com/api/create-chat-completion
    "deepseek": Vendor(
        base_url="https://api.deepseek.com",
        refuses={"logit_bias", "n", "parallel_tool_calls", "seed"},
        json_schema=False,
        embeddings=False,
        lists_models=True,
    ),
    # https://docs.x.ai/docs/api-reference
    "xai": Vendor(
        base_url="https://api.x.ai/v1",
        refuses={"logit_bias"},
        takes={"web_search_options"},
        completion_limit=True,
        embeddings=False,
        lists_models=True,
    ),
    # https://openrouter.ai/docs/api-reference/parameters
    "openrouter": Vendor(
        base_url="https://openrouter.ai/api/v1",
        takes=(ALONE | UNSAID) - {"function_call", "functions", "store"},
        completion_limit=True,
        thought="reasoning",
    ),
    # https://inference-docs.cerebras.ai/resources/openai
    "cerebras": Vendor(
        base_url="https://api.cerebras.ai/v1",
        refuses={"frequency_penalty", "logit_bias", "presence_penalty"},
        takes={"prediction", "service_tier"},
        completion_limit=True,
        thought="reasoning",
        embeddings=False,
        lists_models=True,
    ),
    # https://docs.perplexity.ai/api-reference/chat-completions-post
    "perplexity": Vendor(
        base_url="https://api.perplexity.ai",
        refuses={
            "logit_bias",
            "logprobs",
            "n",
            "parallel_tool_calls",
            "seed",
            "tool_choice",
            "tools",
            "top_logprobs",
        },
        takes={"web_search_options"},
        usage_option=False,
        embeddings=False,
    ),
    # https://docs.api.nvidia.com/nim/reference/llm-apis
    "nvidia": Vendor(base_url="https://integrate.api.nvidia.com/v1"),
    # https://docs.sambanova.ai/docs/en/features/openai-compatibility
    "sambanova": Vendor(
        base_url="https://api.sambanova.ai/v1",
        refuses={"frequency_penalty", "logit_bias", "logprobs", "n", "presence_penalty", "top_logprobs"},
    ),
    # https://huggingface.co/docs/inference-providers: embeddings are at other paths
    "huggingface": Vendor(base_url="https://router.huggingface.co/v1", embeddings=False),
    # https://platform.moonshot.ai/docs/api/chat
    "moonshot": Vendor(
        base_url="https://api.moonshot.ai/v1",
        refuses={"logit_bias", "logprobs", "parallel_tool_calls", "seed", "top_logprobs"},
        takes={"prompt_cache_key", "safety_identifier"},
        completion_limit=True,
        embeddings=False,
        lists_models=True,
    ),
    # https://docs.z.ai/api-reference/llm/chat-completion: `tool_choice` is always `auto`
    "zai": Vendor(
        base_url="https://api.z.ai/api/paas/v4",
        refuses={
            "frequency_penalty",
            "logit_bias",
            "logprobs",
            "n",
            "parallel_tool_calls",
            "presence_penalty",
            "seed",
            "tool_choice",
            "top_logprobs",
        },
        json_schema=False,
    ),
    # https://deepinfra.com/docs/openai_api
    "deepinfra": Vendor(
        base_url="https://api.deepinfra.com/v1/openai",
        refuses={"logit_bias", "parallel_tool_calls", "top_logprobs"},
        takes={"prompt_cache_key", "service_tier"},
    ),
    # https://docs.hyperbolic.xyz/docs/rest-api
    "hyperbolic": Vendor(base_url="https://api.hyperbolic.xyz/v1"),
    # https://novita.ai/docs/guides/llm-api
    "novita": Vendor(base_url="https://api.novita.ai/openai"),
    # https://docs.tokenfactory.nebius.com
    "nebius": Vendor(base_url="https://api.tokenfactory.nebius.com/v1"),
    # https://docs.baseten.co/development/model-apis/overview: embeddings are at each deployment's own address
    "baseten": Vendor(base_url="https://inference.baseten.co/v1", embeddings=False),
    # https://platform.minimax.io/docs/api-reference/text-openai-api
    "minimax": Vendor(
        base_url="https://api.minimax.io/v1",
        refuses={"frequency_penalty", "logit_bias", "n", "presence_penalty"},
        completion_limit=True,
        embeddings=False,
    ),
    # https://www.alibabacloud.com/help/en/model-studio/use-qwen-by-calling-api
    "dashscope": Vendor(
        base_url="https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        refuses={"frequency_penalty", "logit_bias"},
        takes={"audio", "modalities"},
    ),
    # https://docs.github.com/en/rest/models/inference
    "github_models": Vendor(base_url="https://models.github.ai/inference", takes={"modalities"}, completion_limit=True),
    # https://developers.cloudflare.com/workers-ai/configuration/open-ai-compatibility: the address names the account
    "cloudflare": Vendor(base_url=""),
}
