"""Which gateway the command line talks to, and with which key."""

from pathlib import Path

import pytest

from shared.cli.client import Address, CliError, find_address


def test_what_is_given_comes_before_the_environment() -> None:
    environ = {"SLUICE_URL": "http://env:1", "SLUICE_API_KEY": "env"}
    assert find_address(environ, url="https://given:2/v1", key="k") == Address("https://given:2", "k")
    assert find_address(environ) == Address("http://env:1", "env")


def test_without_an_address_it_is_this_machine_s(tmp_path: Path) -> None:
    environ = {"SLUICE_DATA_DIR": str(tmp_path)}
    assert find_address(environ) == Address("http://127.0.0.1:8080", None)
    assert find_address({**environ, "SLUICE_PORT": "9000"}).url == "http://127.0.0.1:9000"


def test_the_key_is_the_caller_s_then_the_admin_s_then_the_kept_one(tmp_path: Path) -> None:
    (tmp_path / "admin_key").write_text("kept\n")
    environ = {"SLUICE_DATA_DIR": str(tmp_path)}
    assert find_address(environ).key == "kept"
    assert find_address({**environ, "SLUICE_ADMIN_KEY": "admin"}).key == "admin"
    assert find_address({**environ, "SLUICE_ADMIN_KEY": "admin", "SLUICE_API_KEY": "own"}).key == "own"


def test_the_key_is_not_shown_by_accident() -> None:
    assert "secret" not in repr(Address("http://x", "secret"))


def test_an_address_without_a_scheme_is_refused() -> None:
    with pytest.raises(CliError, match="http://"):
        find_address({}, url="localhost:8080")
