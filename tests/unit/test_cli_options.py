"""The options of a submission: what they become in each line, and what is refused."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from shared.cli import options
from shared.cli.client import CliError
from shared.cli.lines import Chunk, Defaults, Survey, chunk_body, request

NOTHING: dict[str, Any] = dict.fromkeys(("model", "priority", "max_tokens", "schema", "deadline", "max_cost"))
SCHEMA = {"type": "object"}


def line(entry: dict[str, Any], defaults: Defaults) -> dict[str, Any]:
    made = request(orjson.dumps(entry), 1, defaults)
    assert isinstance(made, dict)
    return made


def test_lines_get_what_they_do_not_say_in_their_route_s_words(tmp_path: Path) -> None:
    (tmp_path / "my schema.json").write_text('{"type": "object"}')
    given = {"max_tokens": 50, "schema": tmp_path / "my schema.json", "deadline": "2m", "max_cost": "1.5"}
    defaults = options.defaults(**NOTHING | given)
    named = {"name": "my_schema", "schema": SCHEMA}
    assert defaults == Defaults(max_tokens=50, schema=named, deadline=120.0, max_cost=Decimal("1.5"))
    chat = line({"prompt": "x"}, defaults)
    assert chat["deadline"] == 120.0
    assert chat["body"]["max_completion_tokens"] == 50
    assert chat["body"]["response_format"] == {"type": "json_schema", "json_schema": named}
    own = {"messages": [], "max_tokens": 3, "response_format": {"type": "text"}}
    assert line({"body": own, "deadline": 5}, defaults) == {"custom_id": "line-1", "deadline": 5, "body": own}
    responses = line({"url": "/v1/responses", "body": {"input": "x"}}, defaults)["body"]
    assert responses == {
        "input": "x",
        "max_output_tokens": 50,
        "text": {"format": {"type": "json_schema", **named}},
    }
    assert line({"input": "x"}, defaults)["body"] == {"input": "x"}


def test_a_schema_may_bring_its_own_name(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_bytes(orjson.dumps({"name": "mine", "schema": SCHEMA, "strict": True}))
    schema = options.defaults(**NOTHING | {"schema": path}).schema
    assert schema == {"name": "mine", "schema": SCHEMA, "strict": True}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"deadline": "soon"}, "--deadline must be a duration"),
        ({"deadline": "0s"}, "--deadline must be more than 0"),
        ({"max_cost": "-1"}, "--max-cost must be an amount"),
        ({"schema": Path("missing.json")}, "--schema: missing.json cannot be read"),
    ],
)
def test_an_option_that_means_nothing_is_refused_by_name(given: dict[str, Any], told: str) -> None:
    with pytest.raises(CliError, match=told):
        options.defaults(**NOTHING | given)


@pytest.mark.parametrize("content", [b"[]", b"{", b"\xff"])
def test_a_schema_must_be_a_json_object(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s.json"
    path.write_bytes(content)
    with pytest.raises(CliError, match=r"--schema: .* is not"):
        options.defaults(**NOTHING | {"schema": path})


def test_a_prompt_is_given_as_text_or_as_a_file(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_text("\ufeffin\\nfile:\n{text}\n")
    typed = options.prompt(r"a\n{text}", None, system=r"b\nc", glob=None)
    assert (typed.template, typed.system) == ("a\n{text}", "b\nc")
    read = options.prompt(None, file, system=f"@{file}", glob="*")
    assert (read.template, read.system) == ("in\\nfile:\n{text}", "in\\nfile:\n{text}\n")
    with pytest.raises(CliError, match="one of --prompt and --prompt-file"):
        options.prompt("x", file, system=None, glob=None)
    with pytest.raises(CliError, match=r"--system: .* cannot be read"):
        options.prompt(None, None, system="@missing", glob=None)


def test_where_results_go(tmp_path: Path) -> None:
    folder = tmp_path / "v1.2"
    folder.mkdir()
    assert options.places(Path("-"), None) == (Path("results.jsonl"), None)
    assert options.places(Path("in/a.csv"), None) == (Path("a.results.jsonl"), None)
    assert options.places(folder, None) == (Path("v1.2.results.jsonl"), None)
    assert options.places(folder, "texts/") == (Path("texts/results.jsonl"), Path("texts"))
    assert options.places(folder, str(tmp_path)) == (tmp_path / "results.jsonl", tmp_path)
    with pytest.raises(CliError, match="is in the folder"):
        options.places(folder, f"{folder}/out/")
    with pytest.raises(CliError, match="name a file"):
        options.places(Path("in.csv"), str(tmp_path))


def test_what_all_may_cost_is_shared_out_by_lines_and_never_more(tmp_path: Path) -> None:
    surveyed = Survey("", (Chunk(0, 1, 1), Chunk(0, 2, 1), Chunk(0, 3, 1)), ())
    shares = [surveyed.share(chunk, Decimal("0.1")) for chunk in surveyed.chunks]
    assert shares == [Decimal("0.033333333")] * 3
    file = tmp_path / "f.jsonl"
    file.write_text('{"prompt": "x"}\n')
    sent = orjson.loads(chunk_body(file, Chunk(0, 1, 1), Defaults("m"), max_cost=shares[0]))
    assert sent["max_cost_usd"] == "0.033333333"
