"""The tap as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from conftest import Run, settings

if TYPE_CHECKING:
    from pathlib import Path

    from tap_noojee.simulator import Simulator

TAP = [sys.executable, "-m", "tap_noojee"]


def environment(**more: str) -> dict[str, str]:
    """This environment without settings of the tap, and with these."""
    drop = ("TAP_NOOJEE_", "LOGLEVEL", "PYTHONUNBUFFERED")
    rest = {n: v for n, v in os.environ.items() if not n.startswith(drop)}
    return rest | more


def command(
    tmp_path: Path,
    simulator: Simulator,
    *arguments: str,
    state: dict[str, Any] | None = None,
    **config: Any,
) -> list[str]:
    """The command that runs the tap with these settings and this STATE."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(settings(simulator, **config)))
    words = [*TAP, "--config", str(path), *arguments]
    if state is not None:
        (tmp_path / "state.json").write_text(json.dumps(state))
        words += ["--state", str(tmp_path / "state.json")]
    return words


def finished(words: list[str], **more: Any) -> tuple[Run, subprocess.CompletedProcess[str]]:
    """Run a command to its end."""
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        **{"env": environment()} | more,
    )
    return Run(done.stdout), done


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """The message of the last line of the log."""
    return done.stderr.splitlines()[-1].split(" | ", 3)[-1]
