"""Virtual environments, each with a target of its own in it."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from uv import find_uv_bin

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Install = Callable[..., "Environment"]


class Environment:
    """A virtual environment with a target in it."""

    def __init__(self, root: Path) -> None:
        """Take its folder."""
        self._bin = root / "bin"

    def program(self, name: str) -> str:
        """The path of one of its programs."""
        return str(self._bin / name)

    def evaluate(self, code: str, *arguments: object) -> Any:
        """What a program prints, as JSON, that is run by its Python."""
        words = [self.program("python"), "-c", code, *map(str, arguments)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="session")
def install(tmp_path_factory: pytest.TempPathFactory) -> Install:
    """What installs packages into an environment, once for all tests."""

    @cache
    def installed(*packages: str) -> Environment:
        root = tmp_path_factory.mktemp("target")
        for words in (
            ("venv", "--allow-existing", "--python", sys.executable, str(root)),
            ("pip", "install", "--python", str(root / "bin" / "python"), *packages),
        ):
            done = subprocess.run(
                [find_uv_bin(), *words], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
        return Environment(root)

    return installed
