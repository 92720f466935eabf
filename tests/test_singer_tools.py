"""The tap's output, checked by the Singer project's own checker."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from conftest import expected_legs, run_tap

if TYPE_CHECKING:
    from environments import Install

    from tap_noojee.simulator import Simulator

pytestmark = pytest.mark.slow

pytest_plugins = ["environments"]


def test_output_conforms_to_the_singer_specification(pbx: Simulator, install: Install) -> None:
    checker = install("singer-tools==0.4.1").program("singer-check-tap")

    def check(output: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [checker], input=output, capture_output=True, text=True, check=False, timeout=120
        )

    day = ("2021-09-14", "2021-09-15")
    run = run_tap(pbx, start_date=day[0], end_date=day[1])
    done = check(run.output)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(expected_legs(pbx, *day))} record messages" in done.stdout
    assert f"{len(run.states)} state messages" in done.stdout
    assert check(run.output.replace('"Leg":1', '"Leg":"one"')).returncode != 0
