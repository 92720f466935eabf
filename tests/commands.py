"""Helpers that run the tap's command line in this process."""

import contextlib
import dataclasses
import io
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from conftest import Run, drop_field_warnings, settings

from tap_noojee.simulator import Simulator
from tap_noojee.tap import main

SAMPLE_HOUR: dict[str, Any] = {"start_date": "2021-09-14T15:00", "end_date": "2021-09-14T16:00"}
"""Settings for the sample hour in the vendor's documentation. It has four legs."""


@dataclasses.dataclass
class CommandResult(Run):
    """The output, exit code and log of a command."""

    code: int = 0
    log: str = ""

    def logged(self, *levels: str) -> list[str]:
        """Return the log messages at these levels, except warnings about unsent fields."""
        lines = [line.split(" | ", 3) for line in self.log.splitlines()]
        return drop_field_warnings(
            parts[-1] for parts in lines if len(parts) > 1 and parts[1].strip() in levels
        )

    @property
    def error_line(self) -> str:
        """Check that the run exited with 1 and wrote nothing, and return its only error."""
        assert (self.code, self.output) == (1, ""), self.log
        (line,) = self.logged("ERROR", "CRITICAL")
        assert self.log.splitlines()[-1].endswith(line)  # no traceback follows
        return line


def run_command(*arguments: object, env: dict[str, str] | None = None) -> CommandResult:
    """Run `tap-noojee` with these arguments and environment variables."""
    stdout, stderr = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.StringIO()
    inherited = {k: v for k, v in os.environ.items() if "NOOJEE" not in k and "LOGLEVEL" not in k}
    code: Any = 0
    with (
        mock.patch.object(logging.root, "handlers", logging.root.handlers[:]),
        mock.patch.object(sys, "argv", ["tap-noojee", *map(str, arguments)]),
        mock.patch.object(sys, "excepthook"),  # the SDK replaces it
        mock.patch.dict(os.environ, inherited | (env or {}), clear=True),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        contextlib.ExitStack() as stack,
    ):
        stack.callback(logging.root.setLevel, logging.root.level)
        stack.callback(logging.captureWarnings, capture=False)
        try:
            main()
        except SystemExit as error:
            code = error.code
    if isinstance(code, str):
        # Python would print the string and exit with 1. Add it to the log for `logged`.
        stderr.write(f"now | ERROR | tap-noojee | {code}")
        code = 1
    stdout.seek(0)
    return CommandResult(stdout.read(), code=code or 0, log=stderr.getvalue())


def run_with(pbx: Simulator, tmp_path: Path, *options: object, **config: Any) -> CommandResult:
    """Run `tap-noojee` for the sample hour with these options and settings."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(settings(pbx, **SAMPLE_HOUR | config)))
    return run_command("--config", path, *options)


def variables(pbx: Simulator, **more: str) -> dict[str, str]:
    """Return environment variables that configure a run for the sample hour."""
    config = settings(pbx, **SAMPLE_HOUR | more)
    return {f"TAP_NOOJEE_{name.upper()}": str(value) for name, value in config.items()}
