"""Which instants exist does not hang on a machine's own zone files."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path


def test_a_machine_s_own_zone_files_are_not_asked(tmp_path: Path) -> None:
    """Two workers with other system files would otherwise disagree on what is owed."""
    (tmp_path / "Europe").mkdir()
    utc = files("tzdata").joinpath("zoneinfo", "UTC").read_bytes()
    (tmp_path / "Europe" / "Berlin").write_bytes(utc)
    code = (
        "from agentex.cadence.dst import stretches\n"
        "print([one.offset for one in stretches('Europe/Berlin', 2026)])"
    )
    environment = os.environ | {"PYTHONTZPATH": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert ran.stdout.decode().strip() == "[3600, 7200, 3600]"
