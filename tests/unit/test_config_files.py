"""`files` in the configuration: what each storage needs, and that no secret is shown."""

import re
from pathlib import Path

import pytest

from shared import config
from shared.config_files import Files
from shared.errors import ConfigError


def load(tmp_path: Path, files: str, **env: str) -> Files:
    path = tmp_path / "sluice.yaml"
    path.write_text(f"providers: {{o: {{kind: simulated}}}}\nfiles: {{{files}}}\n")
    return config.load(path, env).files


def test_postgres_is_the_default(tmp_path: Path) -> None:
    assert load(tmp_path, "") == Files(storage="postgres", prefix="sluice/")
    assert load(tmp_path, "expires_after: 30d").expires_after == 30 * 86_400


def test_the_example_shows_every_setting(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "sluice.example.yaml").read_text()
    found = re.search(r"^files:.*\n((?:  .*\n)+)", text, re.MULTILINE)
    assert found is not None
    path = tmp_path / "sluice.yaml"
    path.write_text("providers: {o: {kind: simulated}}\nfiles:\n" + re.sub("^  # ", "  ", found[1], flags=re.MULTILINE))
    files = config.load(path, {"S3_KEY_ID": "a", "S3_KEY": "hunter2"}).files
    assert files.model_fields_set == set(Files.model_fields)
    assert files.secret_access_key is not None
    assert "hunter2" not in repr(files)


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ("storage: tape", "files.storage: must be"),
        ("storage: disk", "files.path: is required where the storage is disk"),
        ("storage: s3", "files.bucket: is required where the storage is s3"),
        ("storage: s3, bucket: 'a b'", "files.bucket: "),
        ("bucket: abc, endpoint_url: nowhere", "files.endpoint_url: must be an http or https URL"),
        ("bucket: abc, access_key_id: a", "files.secret_access_key: must stand together with access_key_id"),
        ("bucket: abc, secret_access_key: a", "files.secret_access_key: must stand together with access_key_id"),
        ("expires_after: 59m", "files.expires_after: must be"),
        ("expires_after: later", "files.expires_after: must be a duration"),
        ("colour: red", "files.colour: is not a key here"),
    ],
)
def test_faults(tmp_path: Path, files: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(fault)):
        load(tmp_path, files)
