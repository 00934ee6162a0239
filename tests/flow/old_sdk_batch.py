"""A batch's round trip as the first `openai` SDK that had batches makes it, run by a test in a process of its own.

Says on standard output, as JSON, what it saw. The base URL and the key come from the environment.
"""

import json
import sys
import time

import openai

LINES = [
    {
        "custom_id": name,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "simulated/small", "messages": [{"role": "user", "content": "Hello"}], **more},
    }
    for name, more in (("good", {}), ("bad", {"simulate": {"fail": [{"status": 400}]}}))
]


def main() -> None:
    client = openai.OpenAI()
    file = client.files.create(
        file=("lines.jsonl", "\n".join(map(json.dumps, LINES)).encode()),
        purpose="batch",  # type: ignore[arg-type]
    )
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"k": "v"}
    )
    while batch.status in ("validating", "in_progress", "finalizing"):
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    seen = {
        "version": openai.__version__,
        "status": batch.status,
        "metadata": batch.metadata,
        "counts": batch.request_counts.model_dump() if batch.request_counts else None,
        "output": [json.loads(line) for line in client.files.content(str(batch.output_file_id)).text.splitlines()],
        "errors": [json.loads(line) for line in client.files.content(str(batch.error_file_id)).text.splitlines()],
        "cancelled": client.batches.cancel(batch.id).status,
        "missing": _missing(client),
    }
    json.dump(seen, sys.stdout)


def _missing(client: openai.OpenAI) -> str:
    try:
        client.batches.retrieve("batch_" + "0" * 32)
    except openai.NotFoundError as error:
        return str(error.code)
    return ""


main()
