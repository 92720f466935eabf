"""Helpers to run commands, and virtual environments that all pytest workers share."""

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from uv import find_uv_bin

Install = Callable[[dict[str, Any]], Path]


def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a command, which must succeed, and return its output."""
    done = subprocess.run(command, cwd=cwd, env=env, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def commit(repository: Path, message: str) -> None:
    author = ("-c", "user.name=Nobody", "-c", "user.email=nobody@example.com")
    run("git", *author, "commit", "-qam", message, cwd=repository)


def make_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that the first worker fills with `make` and all workers share."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder, done = base / name, base / f"{name}.done"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def install(tmp_path_factory: pytest.TempPathFactory) -> Install:
    """A function that installs a plugin once for all tests and returns the path of its program."""

    def install_plugin(plugin: dict[str, Any]) -> Path:
        packages = plugin["pip_url"].split()

        def make(root: Path) -> None:
            run(find_uv_bin(), "venv", "--allow-existing", "--python", sys.executable, root)
            run(find_uv_bin(), "pip", "install", "--python", root / "bin" / "python", *packages)

        name = hashlib.sha256("\n".join(packages).encode()).hexdigest()[:12]
        root = make_once(tmp_path_factory, name, make)
        return root / "bin" / str(plugin.get("executable", plugin["name"]))

    return install_plugin
