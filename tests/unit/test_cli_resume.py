"""What a submission remembers: nothing lost, nothing twice, whatever moment it was interrupted at."""

from pathlib import Path

import orjson
import pytest

from shared.cli.client import CliError
from shared.cli.results import append
from shared.cli.resume import Part, State, load, opened, save, state_path


def lines(*names: str) -> list[dict[str, object]]:
    return [{"custom_id": name, "cursor": f"after-{name}"} for name in names]


def written(out: Path) -> list[str]:
    return [orjson.loads(text)["custom_id"] for text in out.read_bytes().splitlines()]


def begun(out: Path) -> State:
    with opened(out, "digest") as (file, state):
        state = state.submitted("batch_1").submitted("batch_2")
        state = state.wrote(1, cursor="after-b", size=append(file, lines("a", "b")))
        save(state_path(out), state)
    return state


def test_a_saved_state_is_read_back_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out.jsonl"
    state = begun(out)
    assert state.parts == (Part("batch_1"), Part("batch_2", "after-b"))
    assert load(state_path(out)) == state
    assert written(out) == ["a", "b"]
    assert b"cursor" not in out.read_bytes()


def test_lines_the_state_does_not_count_are_cut_off(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    state = begun(out)
    with out.open("ab") as file:
        append(file, lines("c"))
        file.write(b'{"custom_id": "to')
    with opened(out, "digest") as (file, again):
        assert again == state
        append(file, lines("c"))
    assert written(out) == ["a", "b", "c"]


def test_a_results_file_that_lost_counted_bytes_is_fetched_anew(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    begun(out)
    out.write_bytes(b'{"custom_id": "a"}\n')
    with opened(out, "digest") as (file, again):
        assert again == State("digest", (Part("batch_1"), Part("batch_2")))
        append(file, lines("a"))
    assert written(out) == ["a"]


def test_another_submission_s_file_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    begun(out)
    before = out.read_bytes()
    with pytest.raises(CliError, match="other lines or options"), opened(out, "another"):
        pass
    assert out.read_bytes() == before


def test_a_file_without_a_state_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("precious\n")
    with pytest.raises(CliError, match="already exists"), opened(out, "digest"):
        pass
    assert out.read_text() == "precious\n"


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with opened(out, "digest"), pytest.raises(CliError, match="another run"), opened(out, "digest"):
        pass


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"parts": [{"x": 1}]}', b'{"parts": 3, "digest": "d"}'])
def test_a_broken_state_is_said_to_be_broken(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(CliError, match="cannot be read"):
        load(path)


def test_lines_submitted_again_are_another_submission_that_goes_on_as_one(tmp_path: Path) -> None:
    begun(tmp_path / "out.jsonl")
    with pytest.raises(CliError, match="--out"), opened(tmp_path / "out.jsonl", "digest", again=True):
        pass
    out = tmp_path / "other.jsonl"
    with opened(out, "digest", again=True) as (_, first):
        assert first.again
    for again in (True, False):  # interrupted before anything was sent, and the same command or one without --again
        with opened(out, "digest", again=again) as (_, state):
            assert state == first
    assert state.submitted("batch_1").rewound().again == first.again


@pytest.mark.parametrize("again", [False, True])
def test_a_refused_submission_leaves_no_empty_file(tmp_path: Path, again: bool) -> None:
    out = tmp_path / "out.jsonl"
    with pytest.raises(CliError, match="refused"), opened(out, "digest", again=again):
        raise CliError("refused")
    assert not out.exists()
    with opened(out, "digest", again=again) as (_, state):
        save(state_path(out), state.submitted("batch_1"))
    assert out.exists()
