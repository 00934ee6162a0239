"""CSV files and folders as lines: what each row or file becomes, and every fault in words."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from shared.cli import csv_rows, folder
from shared.cli.client import CliError
from shared.cli.inputs import Prompt, readable
from shared.cli.lines import Defaults, survey


def lines(source: Path, prompt: str | None = None, **options: Any) -> list[dict[str, Any]]:
    with readable(source, Prompt(prompt, **options), out=source.parent / "out.jsonl") as found:
        return [orjson.loads(raw) for raw in found.path.read_bytes().splitlines()]


def prompts(source: Path, prompt: str | None = None, **options: Any) -> dict[str, str]:
    return {line["custom_id"]: line["body"]["messages"][-1]["content"] for line in lines(source, prompt, **options)}


def refusal(source: Path, prompt: str | None = "{text}", **options: Any) -> str:
    with pytest.raises(CliError) as refused:
        lines(source, prompt, **options)
    return str(refused.value)


def table(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def tree(root: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def test_a_row_fills_the_prompt_and_is_named_after_its_number(tmp_path: Path) -> None:
    file = table(tmp_path / "t.csv", 'words, text\n5,one\n\n6,"two\nlines, ""quoted"""\n')
    assert prompts(file, "{words}: {text} {{}}") == {"row-1": "5: one {}", "row-2": '6: two\nlines, "quoted" {}'}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize(("begin", "end"), [("", "\n"), ("\ufeff", "\r\n")])
def test_delimiters_byte_order_marks_and_line_ends(tmp_path: Path, delimiter: str, begin: str, end: str) -> None:
    rows = [["id", "text"], ["a", '"x;y,z\tü"'], ["b", ""]]
    file = table(tmp_path / "t.csv", begin + "".join(delimiter.join(row) + end for row in rows))
    assert prompts(file, "<{text}>") == {"a": "<x;y,z\tü>", "b": "<>"}


def test_custom_id_comes_before_id_and_a_prompt_column_needs_no_prompt(tmp_path: Path) -> None:
    file = table(tmp_path / "t.CSV", "id,custom_id,prompt\n1,a,say {this}\n")
    assert prompts(file) == {"a": "say {this}"}
    assert prompts(file, "{id}") == {"a": "1"}
    assert lines(file, system="be brief")[0]["body"]["messages"][0] == {"role": "system", "content": "be brief"}


def test_a_custom_id_that_comes_twice_is_a_fault_of_its_row(tmp_path: Path) -> None:
    file = table(tmp_path / "t.csv", "id,text\na,x\nb,y\na,z\n")
    with readable(file, Prompt("{text}"), out=tmp_path / "out") as found:
        assert survey(found.path, Defaults("m"), unit=found.unit).faults == (
            "row 3: custom_id 'a' is already that of row 1",
        )


def test_the_columns_are_told_where_a_prompt_asks_for_another_or_is_missing(tmp_path: Path) -> None:
    file = table(tmp_path / "t.csv", "title,body\nx,y\n")
    assert "asks for {text}, but the columns are {title}, {body}" in refusal(file)
    assert "give --prompt, with {title}, {body} for the columns" in refusal(file, None)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "has no first row"),
        (b"\n,,\n", "has no first row"),
        (b"text,text\na,b\n", "more than one column 'text'"),
        (b"text\nx\n\xff\n", "t.csv, line 3: is not UTF-8"),
        ("text\nx\n".encode("utf-16"), "t.csv, line 1: is not UTF-8"),
        (b'text\n"x\ny\n', "is not CSV"),
        (b'text\n"x"y\n', "line 2: is not CSV"),
        (b"text\n" + b"x" * (csv_rows.LARGEST + 1), "line 2: is larger than 10 MB"),
    ],
)
def test_what_is_no_csv_is_said_with_its_line(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    assert told in refusal(path)


def test_every_faulty_row_is_told_up_to_twenty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = table(tmp_path / "t.csv", 'id,text\na,x\n"b\n"\n,y\n' + "c,d,e\n" * 25)
    assert "correct the faults" in refusal(file)
    told = capsys.readouterr().err.splitlines()
    assert told[:3] == [
        "row 2 (to line 4): has 1 fields, for 2 columns",
        "row 3 (to line 5): its id is empty",
        "row 4 (to line 6): has 3 fields, for 2 columns",
    ]
    assert len(told) == 21
    assert told[-1] == "… and 7 more"


def test_a_folder_s_texts_are_read_in_the_order_of_their_paths(tmp_path: Path) -> None:
    files = {"b.txt": "B", "a/z.md": "\ufeffZ", "a.txt": "A", "a/b/c.rst": "C", "pic.png": "\0", ".git/x.txt": "no"}
    root = tree(tmp_path / "docs", {**files, ".hidden.txt": "no", "D.TXT": "D"})
    assert prompts(root, "{path} {name}: {text}") == {
        "D.TXT": "D.TXT D.TXT: D",
        "a.txt": "a.txt a.txt: A",
        "a/b/c.rst": "a/b/c.rst c.rst: C",
        "a/z.md": "a/z.md z.md: Z",
        "b.txt": "b.txt b.txt: B",
    }
    assert list(prompts(root, "{path}")) == sorted(prompts(root, "{path}"))
    assert list(prompts(root, "{text}", glob="*.md")) == ["a/z.md"]
    assert list(prompts(root, "{text}", glob="b/*")) == ["a/b/c.rst"]
    assert "has no file that fits *.pdf" in refusal(root, glob="*.pdf")
    assert "give --prompt, with {text}, {name}, {path}" in refusal(root, None)


def test_results_in_the_folder_are_not_read(tmp_path: Path) -> None:
    root = tree(tmp_path, {"a.txt": "A", "out.jsonl": "x", "out.jsonl.state.json": "x", "a/out.jsonl": "mine"})
    with readable(root, Prompt("{path}", glob="*"), out=root / "out.jsonl") as found:
        assert [orjson.loads(raw)["custom_id"] for raw in found.path.read_bytes().splitlines()] == [
            "a.txt",
            "a/out.jsonl",
        ]


def test_every_file_that_cannot_be_sent_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "LARGEST", 10)
    root = tree(
        tmp_path, {"a.txt": "fine", "b.txt": b"x\n\xff", "c.txt": "x" * 11, "d.txt": "\0", "f" * 250 + ".md": ""}
    )
    (root / "e.txt").symlink_to(root / "nothing")
    (root / ("g" * 250)).mkdir()
    tree(root / ("g" * 250) / ("g" * 250), {"long long.txt": ""})
    assert "correct the faults" in refusal(root)
    told = capsys.readouterr().err.splitlines()
    assert told[:4] == [
        "b.txt: is not UTF-8 (line 2)",
        "c.txt: is larger than 0 MB",
        "d.txt: contains a NUL character",
        "e.txt: is not a file",
    ]
    assert told[4].endswith("long long.txt: its path is longer than 512 characters")


def test_a_name_that_is_not_utf_8_can_be_told() -> None:
    assert folder.printable("a\udcff.txt") == "a\\udcff.txt"


def test_lines_of_json_take_no_prompt(tmp_path: Path) -> None:
    file = table(tmp_path / "in.jsonl", '{"prompt": "x"}\n')
    assert "are for CSV files and folders" in refusal(file)
    assert "folder" in refusal(file, None, glob="*")
    assert lines(file) == [{"prompt": "x"}]
    assert "is not a file or a folder" in refusal(tmp_path / "missing.csv")
