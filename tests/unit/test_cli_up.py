"""`sluice up` before it starts anything."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def test_a_port_that_is_taken_is_said_before_anything_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        env = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
        ran = subprocess.run(
            [sys.executable, "-m", "shared.cli", "up"],
            cwd=tmp_path,
            env=env | {"PYTHONPATH": str(Path(__file__).parents[2]), "SLUICE_PORT": str(port)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert ran.returncode == 1
    assert f"port {port} is taken: set SLUICE_PORT" in ran.stderr
    assert list(tmp_path.iterdir()) == []
