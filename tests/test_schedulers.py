"""The recipes for cron, Airflow and Dagster, run with a fake Meltano."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pages import block
from processes import wait_until

FAKE_MELTANO = """#!/bin/sh
echo "$PWD: meltano $*" >> "$INVOCATIONS"
sleep "${SLEEP:-0}"
exit "${STATUS:-0}"
"""
EVERY_HOUR = ["10", "*", "*", "*", "*"]


@pytest.fixture
def invocations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file to which the fake Meltano adds a line each time it runs."""
    (tmp_path / "meltano").write_text(FAKE_MELTANO)
    (tmp_path / "meltano").chmod(0o755)
    monkeypatch.setenv("INVOCATIONS", str(tmp_path / "invocations"))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "invocations"


def snippet(invocations: Path, containing: str, language: str) -> str:
    """Return a block of docs/recipes.md, adapted to a project in the test's folder."""
    text = block("docs/recipes.md", containing, language)
    assert "/srv/calls" in text
    return text.replace("/.venv/bin", "").replace("/srv/calls", str(invocations.parent))


def expected_invocation(invocations: Path) -> str:
    return f"{invocations.parent}: meltano run tap-noojee target-postgres\n"


def test_cron_runs_meltano_in_the_project(invocations: Path) -> None:
    path, line = snippet(invocations, "&& meltano run", "crontab").splitlines()
    *fields, command = line.split(maxsplit=5)
    assert fields == EVERY_HOUR
    env = {"PATH": path.removeprefix("PATH="), "INVOCATIONS": str(invocations)}
    subprocess.run(["sh", "-c", command], cwd="/", env=env, check=True)
    assert invocations.read_text() == expected_invocation(invocations)


def test_lock_prevents_concurrent_runs(invocations: Path) -> None:
    *fields, command = snippet(invocations, "flock", "crontab").split(maxsplit=5)
    assert fields == EVERY_HOUR
    with subprocess.Popen(
        ["sh", "-c", command],
        env=os.environ | {"SLEEP": "60"},
        start_new_session=True,
    ) as first:
        wait_until(lambda: invocations.exists() or first.poll() is not None)
        assert first.poll() is None
        second = subprocess.run(["sh", "-c", command], check=False)
        os.killpg(first.pid, signal.SIGKILL)
    assert second.returncode == 1
    assert invocations.read_text() == expected_invocation(invocations)


AIRFLOW = """
import subprocess, sys, types

class DAG:
    def __init__(self, name, schedule, catchup, max_active_runs):
        assert not catchup and max_active_runs == 1
        print(schedule)
    __enter__ = __exit__ = lambda *_: None

def BashOperator(task_id, bash_command, cwd):
    subprocess.run(["bash", "-c", bash_command], cwd=cwd, check=True)

bash = "airflow.providers.standard.operators.bash"
for name in ("airflow", "airflow.sdk", bash):
    sys.modules[name] = types.ModuleType(name)
sys.modules["airflow.sdk"].DAG = DAG
sys.modules[bash].BashOperator = BashOperator
"""

DAGSTER = """
import sys, types

def define_schedule(job, cron_schedule):
    print(cron_schedule)
    job()

dagster = sys.modules["dagster"] = types.ModuleType("dagster")
dagster.op = dagster.job = lambda function: function
dagster.ScheduleDefinition = define_schedule
"""


@pytest.mark.parametrize("status", [0, 1])
@pytest.mark.parametrize(
    ("stand_in", "containing"),
    [(AIRFLOW, "import DAG"), (DAGSTER, "import dagster")],
    ids=["airflow", "dagster"],
)
def test_scheduler_runs_meltano_in_the_project(
    invocations: Path, stand_in: str, containing: str, status: int
) -> None:
    """A stand-in for the scheduler runs the task immediately."""
    done = subprocess.run(
        [sys.executable, "-c", stand_in + snippet(invocations, containing, "python")],
        env=os.environ | {"STATUS": str(status)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert done.stdout.split() == EVERY_HOUR
    assert invocations.read_text() == expected_invocation(invocations)
