"""docs/adding-a-provider.md is true: its example is a provider, and keeps the contract."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from shared import config
from shared.providers._vendors import VENDORS, Vendor

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "adding-a-provider.md").read_text()
BLOCKS = dict(re.findall(r"^```\w+ (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))

# What makes a kind of the example in the process that runs the contract: its file is found, and so are its cases.
PLUGIN = """
from pathlib import Path

import shared.providers
from tests.providers import golden

HERE = Path(__file__).parent
shared.providers.__path__.append(str(HERE / "providers"))
shared.providers.kinds.cache_clear()
golden.ROOT = HERE / "golden"
"""


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the example's files where the contract looks for them."""
    here = tmp_path_factory.mktemp("example")
    (here / "providers").mkdir()
    (here / "golden" / "parley").mkdir(parents=True)
    (here / "example_is_a_kind.py").write_text(PLUGIN)
    for name, block in BLOCKS.items():
        if name == "parley.py":
            (here / "providers" / name).write_text(block)
        elif name.endswith(".json"):
            (here / "golden" / "parley" / name).write_text(block)
    return here


def test_the_page_shows_every_file() -> None:
    files = {"requests", "answers", "streams", "errors", "faults"}
    assert BLOCKS.keys() == {"sluice.yaml", "row.py", "parley.py", *(f"{name}.json" for name in files)}


def test_the_configuration_is_one(tmp_path: Path) -> None:
    path = tmp_path / "sluice.yaml"
    path.write_text(BLOCKS["sluice.yaml"])
    read = config.load(path, {"ACME_API_KEY": "secret"})
    assert read.models["fast"].targets == ("acme/acme-small",)


def test_the_row_is_one() -> None:
    rows = eval(f"{{{BLOCKS['row.py']}}}", {"Vendor": Vendor})
    assert rows["acme"].refuses == {"seed"}
    assert not rows.keys() & VENDORS.keys()


def test_the_example_keeps_the_contract(example: Path) -> None:
    # A process of its own: the kinds of this one stay what they are.
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "example_is_a_kind", "-k", "parley"]
    ran = subprocess.run(
        [*command, "-vv", "tests/providers/test_contract.py"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{example}"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
    for name in ("a reply, partly from a cache", "a fault in the middle", "too fast", "what Parley cannot do"):
        assert f"parley-{name}]" in ran.stdout
    assert "SKIPPED" not in ran.stdout


def test_the_example_is_written_as_the_others_are(example: Path) -> None:
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        pytest.skip("ruff is not installed beside this Python")
    settings = ["--config", str(ROOT / "pyproject.toml"), str(example / "providers")]
    for command in (["check", "--no-cache"], ["format", "--no-cache", "--check"]):
        ran = subprocess.run([ruff, *command, *settings], capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stdout + ran.stderr
