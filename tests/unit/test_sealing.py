import base64

import pytest

from shared import sealing, settings
from shared.errors import ConfigError
from shared.sealing import SealedError

OLD, NEW = (base64.b64encode(letter * 32).decode() for letter in (b"o", b"n"))


def test_a_new_key_is_random_and_can_be_used() -> None:
    first, second = sealing.new_key(), sealing.new_key()
    assert sealing.beginning(sealing.keys(first)) != sealing.beginning(sealing.keys(second))


def test_what_is_sealed_opens_as_what_it_is_bound_to_and_no_other() -> None:
    keys = sealing.keys(OLD)
    sealed = sealing.seal(keys, "grüße", bound="tenant/row")
    assert "grüße".encode() not in sealed
    assert sealed != sealing.seal(keys, "grüße", bound="tenant/row")
    assert sealing.unseal(keys, sealed, bound="tenant/row") == "grüße"
    with pytest.raises(SealedError, match="not what was sealed"):
        sealing.unseal(keys, sealed, bound="other/row")


@pytest.mark.parametrize("at", range(39))
def test_every_byte_counts(at: int) -> None:
    keys = sealing.keys(OLD)
    sealed = bytearray(sealing.seal(keys, "secret", bound=""))
    assert len(sealed) == 39
    sealed[at] ^= 1
    with pytest.raises(SealedError):
        sealing.unseal(keys, bytes(sealed), bound="")


@pytest.mark.parametrize("length", [0, 1, 5, 17, 20])
def test_what_is_cut_short_does_not_open(length: int) -> None:
    keys = sealing.keys(OLD)
    with pytest.raises(SealedError):
        sealing.unseal(keys, sealing.seal(keys, "secret", bound="")[:length], bound="")


def test_a_new_key_first_seals_and_the_old_one_still_opens() -> None:
    before = sealing.seal(sealing.keys(OLD), "secret", bound="")
    both = sealing.keys(f"{NEW}, {OLD}")
    assert sealing.unseal(both, before, bound="") == "secret"
    after = sealing.seal(both, "secret", bound="")
    assert after.startswith(sealing.beginning(both))
    assert not before.startswith(sealing.beginning(both))
    assert sealing.unseal(sealing.keys(NEW), after, bound="") == "secret"
    with pytest.raises(SealedError, match="SLUICE_SECRETS_KEY"):
        sealing.unseal(sealing.keys(OLD), after, bound="")


@pytest.mark.parametrize(
    "text",
    ["", "x", base64.b64encode(b"k" * 31).decode(), f"{OLD},", f"{OLD};{NEW}", base64.b64encode(b"k" * 33).decode()],
)
def test_what_is_no_key_is_refused_without_being_shown(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="base64 of 32 bytes"):
        sealing.keys(text)
    if text:
        monkeypatch.setenv("SLUICE_SECRETS_KEY", text)
        with pytest.raises(ConfigError, match=r"SLUICE_SECRETS_KEY: .*base64 of 32 bytes") as refused:
            settings.load()
        assert text not in str(refused.value) or len(text) == 1


def test_the_environment_holds_the_keys_and_settings_hide_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_SECRETS_KEY", "")
    assert settings.load().secrets_keys is None
    monkeypatch.setenv("SLUICE_SECRETS_KEY", f"{NEW},{OLD}")
    chosen = settings.load()
    assert chosen.secrets_keys is not None
    assert len(chosen.secrets_keys) == 2
    assert NEW not in repr(chosen)
