"""The recipes for Airflow and Dagster, run by these from the page's own text."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from pages import block

if TYPE_CHECKING:
    from pathlib import Path

    from environments import Install

pytestmark = pytest.mark.slow

pytest_plugins = ["environments"]

MELTANO = """#!/bin/sh
echo "$PWD: meltano $*" >> "$CALLS"
exit "$STATUS"
"""

AIRFLOW = """
import runpy, sys
dag = runpy.run_path(sys.argv[1])["calls"]
dag.task_dict["recordings"].execute({})
print(dag.schedule)
"""

DAGSTER = """
import runpy, sys
found = runpy.run_path(sys.argv[1])
found["calls"].execute_in_process()
assert found["hourly"].job is found["calls"]
print(found["hourly"].cron_schedule)
"""


@pytest.mark.parametrize("status", [0, 1])
@pytest.mark.parametrize(
    ("packages", "containing", "code"),
    [
        (["apache-airflow==3.*", "apache-airflow-providers-standard"], "import DAG", AIRFLOW),
        (["dagster==1.*"], "import dagster", DAGSTER),
    ],
    ids=["airflow", "dagster"],
)
def test_a_scheduler_runs_meltano_in_the_project(  # noqa: PLR0913, PLR0917 - two of pytest's own
    install: Install,
    tmp_path: Path,
    packages: list[str],
    containing: str,
    code: str,
    status: int,
) -> None:
    """By the page's text, at minute 10 it runs Meltano there once, and fails where that fails."""
    text = block("docs/recipes.md", containing, "python")
    assert "/srv/calls" in text
    (tmp_path / "page.py").write_text(text.replace("/srv/calls", str(tmp_path)))
    # The command itself is run by the test of the line for cron.
    (tmp_path / "meltano").write_text(MELTANO)
    (tmp_path / "meltano").chmod(0o755)
    calls = tmp_path / "calls"
    env = os.environ | {
        "AIRFLOW_HOME": str(tmp_path),
        "CALLS": str(calls),
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "STATUS": str(status),
    }
    words = [install(*packages).program("python"), "-c", code, str(tmp_path / "page.py")]
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert calls.read_text() == f"{tmp_path}: meltano run tap-noojee target-postgres\n"
    assert status or done.stdout.splitlines()[-1] == "10 * * * *"
