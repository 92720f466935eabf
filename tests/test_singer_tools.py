"""The tap's output as the Singer project's own checker sees it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from conftest import run_tap, truth
from uv import find_uv_bin

if TYPE_CHECKING:
    from pathlib import Path

    from tap_noojee.simulator import Simulator

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install singer-check-tap in an environment of its own, for it needs older libraries."""
    folder = tmp_path_factory.mktemp("singer-tools")
    python = folder / "venv" / "bin" / "python"
    for command in (
        ["venv", "-q", "--python", sys.executable, str(folder / "venv")],
        ["pip", "install", "-q", "--python", str(python), "singer-tools==0.4.1"],
    ):
        subprocess.run([find_uv_bin(), *command], check=True)
    return python.with_name("singer-check-tap")


def check(checker: Path, output: str) -> subprocess.CompletedProcess[str]:
    """Have an output checked."""
    return subprocess.run(
        [checker], input=output, capture_output=True, text=True, check=False, timeout=120
    )


def test_the_output_conforms_to_the_singer_specification(pbx: Simulator, checker: Path) -> None:
    """singer-check-tap accepts a day's output, and what is no output of a tap it does not."""
    run = run_tap(pbx, start_date="2021-09-14", end_date="2021-09-15")
    done = check(checker, run.output)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(truth(pbx, '2021-09-14', '2021-09-15'))} record messages" in done.stdout
    assert "24 state messages" in done.stdout
    assert check(checker, run.output.replace('"Leg":1', '"Leg":"one"')).returncode != 0
