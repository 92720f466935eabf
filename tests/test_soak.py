"""A scaled-down soak; `python tests/soak` runs it for a year."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from soak.engine import Plan, soak

if TYPE_CHECKING:
    from projects import Project

pytestmark = [
    pytest.mark.slow,
    # Meltano is installed once, by one worker.
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc"),
]

pytest_plugins = ["projects"]

PLAN = os.environ.get("SOAK_PLAN", '{"hours": 200, "hours_per_run": 40, "seed": 15}')


def test_kills_and_failures_over_many_runs_lose_no_leg(project: Project) -> None:
    """After each run STATE claims only what is in the table, which in the end has every leg."""
    report = soak(Plan(**json.loads(PLAN)), project)
    click.echo(report)
    assert report.kills
    assert report.failures
