"""A copy of this project with a Meltano of its own, for the tests that run both."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from pages import ROOT, block, shell
from postgres import serve
from uv import find_uv_bin

from tap_noojee.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from postgres import Postgres

FROM_OUTSIDE = ("TAP_NOOJEE_", "TARGET_", "MELTANO_", "LOGLEVEL")
"""How the names begin of variables that would change what Meltano does."""


@dataclasses.dataclass
class Project:
    """The copy, as one test sees it: with nothing read so far."""

    root: Path
    environment: dict[str, str]

    @property
    def content(self) -> dict[str, Any]:
        """What meltano.yml has."""
        found: dict[str, Any] = yaml.safe_load((self.root / "meltano.yml").read_text("utf-8"))
        return found

    @content.setter
    def content(self, content: dict[str, Any]) -> None:
        text = yaml.safe_dump(content, sort_keys=False)
        (self.root / "meltano.yml").write_text(text, "utf-8")

    @property
    def bin(self) -> Path:
        """Where Meltano itself is."""
        return self.root.parent / "venv" / "bin"

    @property
    def output(self) -> Path:
        """Where target-jsonl writes."""
        return self.root / "output" / "recordings.jsonl"

    @property
    def records(self) -> list[dict[str, Any]]:
        """What target-jsonl wrote, in order."""
        if not self.output.exists():
            return []
        return [json.loads(line) for line in self.output.read_text("utf-8").splitlines()]

    def read(self, pbx: Simulator, start: str, end: str, **more: str) -> None:
        """Set what to read of which PBX."""
        self.environment |= {
            "TAP_NOOJEE_API_URL": pbx.url,
            "TAP_NOOJEE_API_KEY": pbx.api_key,
            "TAP_NOOJEE_START_DATE": start,
            "TAP_NOOJEE_END_DATE": end,
            "TAP_NOOJEE_REQUEST_INTERVAL": "0",
        } | more

    def load_into(self, server: Postgres, schema: str) -> None:
        """Tell target-postgres where to write, with nothing in that schema."""
        server.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        self.environment |= {
            "TARGET_POSTGRES_HOST": server.host,
            "TARGET_POSTGRES_PORT": str(server.port),
            "TARGET_POSTGRES_USER": server.user,
            "TARGET_POSTGRES_PASSWORD": server.password,
            "TARGET_POSTGRES_DATABASE": server.database,
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start Meltano as the leader of a process group."""
        return subprocess.Popen(
            [self.bin / "meltano", *arguments],
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,  # any question would be an error
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def meltano(self, *arguments: str, status: int = 0) -> str:
        """Run Meltano to its end and give all that it says."""
        with self.start(*arguments) as process:
            printed, _ = process.communicate()
        assert process.returncode == status, printed
        return printed


def _run(*command: str | Path, cwd: Path) -> str:
    """Run a command that has to succeed."""
    process = subprocess.run(command, cwd=cwd, check=False, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy what is, or could be, committed, and install Meltano and all plugins."""
    folder = tmp_path_factory.mktemp("meltano")
    root = folder / "project"
    for name in _run(
        *("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"), cwd=ROOT
    ).split("\0"):
        if name and (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    _run(find_uv_bin(), "venv", "--python", sys.executable, "venv", cwd=folder)
    group = f"{root / 'pyproject.toml'}:meltano"
    _run(
        *(find_uv_bin(), "pip", "install", "--python", "venv/bin/python", "--group", group),
        cwd=folder,
    )
    Project(root, _environment()).meltano("install")
    return root


@pytest.fixture
def project(installed: Path, tmp_path: Path) -> Iterator[Project]:
    """A project in which nothing was read so far."""
    # A state of its own is all that a test needs: the plugins can stay installed.
    suffix = {"MELTANO_RUN_STATE_ID_SUFFIX": tmp_path.name}
    yield Project(installed, _environment() | suffix)
    shutil.rmtree(installed / "output", ignore_errors=True)


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    """Run a server whose own zone is not UTC, as one in Melbourne would be."""
    with serve("Australia/Melbourne") as postgres:
        yield postgres


def _environment() -> dict[str, str]:
    rest = {n: v for n, v in os.environ.items() if not n.startswith(FROM_OUTSIDE)}
    return rest | {
        # Nobody is there: a command that needs the Hub fails.
        "MELTANO_HUB_URL": "http://127.0.0.1:9",
        "NO_COLOR": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


@dataclasses.dataclass
class FirstSteps:
    """What came of the README's steps in an empty project."""

    root: Path
    printed: str
    statuses: list[int | None]


@pytest.fixture(scope="session")
def first_steps(installed: Path) -> FirstSteps:
    """Take the README's steps to the letter, but for the address of the PBX."""
    (installed.parent / "tap-noojee").symlink_to(installed)
    _run(*("venv/bin/meltano", "init", "own", "--no-usage-stats"), cwd=installed.parent)
    root = installed.parent / "own"
    text = block("README.md", "--from-ref", "sh")
    with Simulator(api_key="the-key-from-Noojee") as pbx:
        printed = shell(text, root, _environment() | {"TAP_NOOJEE_API_URL": pbx.url})
        return FirstSteps(root, printed, [request.status for request in pbx.requests])


@pytest.fixture(scope="session")
def own_root(first_steps: FirstSteps) -> Path:
    """Add what the recipes add, and targets; the Hub, which has the README's, is not there."""
    project = Project(first_steps.root, _environment())
    content = project.content
    plugins = content["plugins"]
    pbxs = yaml.safe_load(block("docs/recipes.md", "inherit_from", "yaml"))
    plugins["extractors"] += pbxs["extractors"]
    plugins |= yaml.safe_load(block("docs/recipes.md", "mappers", "yaml"))
    ours = yaml.safe_load((ROOT / "meltano.yml").read_text("utf-8"))
    plugins["loaders"] = ours["plugins"]["loaders"]
    project.content = content
    project.meltano("install")
    return project.root


@pytest.fixture
def own(own_root: Path, tmp_path: Path) -> Iterator[Project]:
    """The project that came of the README's steps, in which nothing was read so far."""
    suffix = {"MELTANO_RUN_STATE_ID_SUFFIX": tmp_path.name}
    path = own_root / "meltano.yml"
    before = path.read_bytes()
    yield Project(own_root, _environment() | suffix)
    path.write_bytes(before)
    shutil.rmtree(own_root / "output", ignore_errors=True)
