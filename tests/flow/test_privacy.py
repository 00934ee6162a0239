"""Prompts, completions and secrets never reach a log, at any level, whatever goes wrong with the job."""

from pathlib import Path

from tests.gateway import ADMIN_KEY, gateway

PROMPT = "the-prompt-that-nobody-may-see"
KEY = "sk-the-key-that-nobody-may-see"
CONFIG = f"""
providers:
  simulated: {{kind: simulated, base_url: UPSTREAM/v1, timeout: 1s, keys: [{{name: main, value: {KEY}}}]}}
"""


async def test_no_log_holds_a_prompt_an_answer_or_a_key(tmp_path: Path, database: str, redis: str) -> None:
    faults: list[object] = ["reset", "html", "truncate", "error_in_200", {"status": 400}, {"status": 401}, "hang"]
    env = {"SLUICE_LOG_LEVEL": "debug", "SLUICE_MAX_ATTEMPTS": "1"}
    async with gateway(tmp_path, database, redis, config=CONFIG, env=env) as sluice:
        for number, fault in enumerate(faults):
            model = f"simulated/{number}"  # a lane each: what fails closes its own
            id_ = await sluice.submit(text=PROMPT, model=model, simulate={"key": str(number), "fail": [fault]})
            assert (await sluice.ended(id_))["status"] == "failed"
        id_ = await sluice.submit(text=PROMPT)
        assert PROMPT in str((await sluice.ended(id_))["result"])
        status, refused, _ = await sluice.ask("POST", "/v1/jobs", {"body": {"model": 1, "messages": PROMPT}})
        assert status == 400
        assert PROMPT not in str(refused)
        logs = {path.name: path.read_text() for path in tmp_path.glob("*.log")}
    assert {"api.log", "simulated.log", "maintain.log"} <= logs.keys()
    assert "job.attempt_ended" in logs["simulated.log"]
    for name, text in logs.items():
        for secret in (PROMPT, KEY, ADMIN_KEY):
            assert secret not in text, name
