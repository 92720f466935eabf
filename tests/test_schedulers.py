"""The recipes for cron, Airflow and Dagster: their commands, with a stand-in for Meltano."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from pages import block

if TYPE_CHECKING:
    from pathlib import Path

MELTANO = """#!/bin/sh
echo "$PWD: meltano $*" >> "$CALLS"
sleep "${SLEEP:-0}"
exit "${STATUS:-0}"
"""
EVERY_HOUR = ["10", "*", "*", "*", "*"]


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which the stand-in lists its calls."""
    (tmp_path / "meltano").write_text(MELTANO)
    (tmp_path / "meltano").chmod(0o755)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "calls"


def snippet(calls: Path, containing: str, language: str) -> str:
    """A block of the page, for a project in the test's folder."""
    text = block("docs/recipes.md", containing, language)
    assert "/srv/calls" in text
    return text.replace("/srv/calls/.venv/bin", str(calls.parent)).replace(
        "/srv/calls", str(calls.parent)
    )


def expected_call(calls: Path) -> str:
    return f"{calls.parent}: meltano run tap-noojee target-postgres\n"


def test_cron_runs_meltano_in_the_project(calls: Path) -> None:
    path, line = snippet(calls, "&& meltano run", "crontab").splitlines()
    *fields, command = line.split(maxsplit=5)
    assert fields == EVERY_HOUR
    env = {"PATH": path.removeprefix("PATH="), "CALLS": str(calls)}
    subprocess.run(["sh", "-c", command], cwd="/", env=env, check=True)
    assert calls.read_text() == expected_call(calls)


def test_lock_stops_a_second_run(calls: Path) -> None:
    *fields, command = snippet(calls, "flock", "crontab").split(maxsplit=5)
    assert fields == EVERY_HOUR
    with subprocess.Popen(
        ["sh", "-c", command],
        env=os.environ | {"SLEEP": "60"},
        start_new_session=True,
    ) as first:
        while not calls.exists():
            assert first.poll() is None
            time.sleep(0.01)
        second = subprocess.run(["sh", "-c", command], check=False)
        os.killpg(first.pid, signal.SIGKILL)
    assert second.returncode == 1
    assert calls.read_text() == expected_call(calls)


@pytest.mark.parametrize("status", [0, 1])
def test_airflow_runs_meltano_in_the_project(calls: Path, status: int) -> None:
    found: dict[str, Any] = {}
    for node in ast.walk(ast.parse(snippet(calls, "import DAG", "python"))):
        if isinstance(node, ast.Call):
            found |= {k.arg: ast.literal_eval(k.value) for k in node.keywords if k.arg}
    assert found["schedule"].split() == EVERY_HOUR
    assert (found["catchup"], found["max_active_runs"]) == (False, 1)
    # As BashOperator does.
    done = subprocess.run(
        ["bash", "-c", found["bash_command"]],
        cwd=found["cwd"],
        env=os.environ | {"STATUS": str(status)},
        check=False,
    )
    assert done.returncode == status
    assert calls.read_text() == expected_call(calls)


DAGSTER = """
class ScheduleDefinition:
    def __init__(self, job, cron_schedule):
        self.job, self.cron_schedule = job, cron_schedule

op = job = lambda function: function
"""


@pytest.mark.parametrize("status", [0, 1])
def test_dagster_runs_meltano_in_the_project(calls: Path, status: int) -> None:
    """With a stand-in for Dagster that runs the job's function."""
    (calls.parent / "dagster.py").write_text(DAGSTER)
    page = snippet(calls, "import dagster", "python")
    code = f"{page}\nprint(hourly.cron_schedule)\nhourly.job()\n"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=calls.parent,
        env=os.environ | {"STATUS": str(status)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status
    assert done.stdout.split() == EVERY_HOUR
    assert calls.read_text() == expected_call(calls)
