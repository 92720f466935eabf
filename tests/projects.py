"""Two real Meltano projects: a clone of this repository, and a new one beside it."""

import dataclasses
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from environments import commit, make_once, run
from pages import ROOT, block
from postgres import Postgres
from uv import find_uv_bin

from tap_noojee.simulator import Simulator

pytest_plugins = ["postgres"]

_STATE_ID = "dev:tap-noojee-to-target-postgres"

_REMOVED_PREFIXES = (
    "TAP_NOOJEE_",
    "TARGET_",
    "MELTANO_",
    "LOGLEVEL",
    "VIRTUAL_ENV",
    "UV_PROJECT",
    "PG",
)
"""Prefixes of variables that would change how the programs behave."""


@dataclasses.dataclass
class Project:
    """A Meltano project and the environment of its commands."""

    root: Path
    environment: dict[str, str]
    bin: Path
    """The folder that contains the program `meltano`."""

    @property
    def content(self) -> dict[str, Any]:
        """The parsed content of meltano.yml. Assigning to it writes the file."""
        found: dict[str, Any] = yaml.safe_load((self.root / "meltano.yml").read_text("utf-8"))
        return found

    @content.setter
    def content(self, content: dict[str, Any]) -> None:
        text = yaml.safe_dump(content, sort_keys=False)
        (self.root / "meltano.yml").write_text(text, "utf-8")

    @property
    def records(self) -> list[dict[str, Any]]:
        """The records that target-jsonl wrote, in order."""
        path = self.root / "output" / "recordings.jsonl"
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def plugin(self, kind: str, name: str) -> dict[str, Any]:
        """Return a plugin's definition in meltano.yml."""
        (found,) = (plugin for plugin in self.content["plugins"][kind] if plugin["name"] == name)
        return dict(found)

    def change(self, kind: str, name: str, **changes: Any) -> None:
        """Change a plugin's definition in meltano.yml, and merge `config` into its settings."""
        content = self.content
        (found,) = (plugin for plugin in content["plugins"][kind] if plugin["name"] == name)
        config = found.get("config", {}) | changes.pop("config", {})
        found |= changes | {"config": config}
        self.content = content

    def configure_tap(self, pbx: Simulator, start: str, end: str, **more: str) -> None:
        """Point the tap at this PBX, and set the hours to read and any other variables."""
        self.environment |= {
            "TAP_NOOJEE_API_URL": pbx.url,
            "TAP_NOOJEE_API_KEY": pbx.api_key,
            "TAP_NOOJEE_START_DATE": start,
            "TAP_NOOJEE_END_DATE": end,
            "TAP_NOOJEE_REQUEST_INTERVAL": "0",
        } | more

    def use_postgres(self, server: Postgres, schema: str = "tap_noojee") -> None:
        """Point target-postgres at this server, and drop what an earlier test left behind."""
        server.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        for name in ("host", "port", "user", "password", "database"):
            self.environment[f"TARGET_POSTGRES_{name.upper()}"] = str(getattr(server, name))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start Meltano as the leader of a process group."""
        return subprocess.Popen(
            [self.bin / "meltano", *arguments],
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,  # so that a prompt fails
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def meltano(self, *arguments: str, status: int = 0) -> str:
        """Run Meltano, check its exit code, and return its output and log."""
        with self.start(*arguments) as process:
            printed, _ = process.communicate()
        assert process.returncode == status, printed
        return printed

    def shell(
        self, text: str, answer: str = "", *, status: int = 0, env: dict[str, str] | None = None
    ) -> str:
        """Run a page's commands in a shell with this test's state id, and return all output.

        `answer` is the standard input.
        """
        text = text.replace(_STATE_ID, self.state_id)
        path = f"{self.bin}{os.pathsep}{self.environment['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.root,
            env=self.environment | {"PATH": path} | (env or {}),
            input=answer,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == status, done.stdout
        return done.stdout

    @property
    def state_id(self) -> str:
        """The state id of this test's runs into target-postgres."""
        return f"{_STATE_ID}:{self.environment['MELTANO_RUN_STATE_ID_SUFFIX']}"

    def bookmark(self) -> dict[str, Any]:
        """Return the bookmark in Meltano's database, merged as `meltano state get` does."""
        query = "SELECT completed_state, partial_state FROM state WHERE state_id = ?"
        with closing(sqlite3.connect(self.root / ".meltano" / "meltano.db")) as database:
            states = database.execute(query, [self.state_id]).fetchone() or ()
        found: dict[str, Any] = {}
        for state in states:
            singer = json.loads(state or "{}").get("singer_state", {})
            found |= singer.get("bookmarks", {}).get("recordings", {})
        return found

    def hours_read(self) -> list[tuple[str, str]]:
        """Return the ranges of hours in the bookmark."""
        return [(item["from"], item["to"]) for item in self.bookmark().get("hours_read", [])]


def _environment(suffix: str = "") -> dict[str, str]:
    """Return environment variables for Meltano. The suffix gives each test its own state."""
    rest = {
        name: value for name, value in os.environ.items() if not name.startswith(_REMOVED_PREFIXES)
    }
    return rest | {
        # Nothing listens on this port, so a command that needs the Hub fails.
        "MELTANO_HUB_URL": "http://127.0.0.1:9",
        "MELTANO_RUN_STATE_ID_SUFFIX": suffix,
        "NO_COLOR": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the working tree into a new git repository, and install Meltano and all plugins."""

    def make(folder: Path) -> None:
        root = folder / "tap-noojee"
        listed = run("git", "ls-files", "-zco", "--exclude-standard", cwd=ROOT)
        for name in listed.split("\0"):
            if name and (ROOT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)
        run("git", "init", "-q", cwd=root)
        run("git", "add", ".", cwd=root)
        commit(root, "Add all files")
        (root / ".uv" / "bin").mkdir(parents=True)
        (root / ".uv" / "bin" / "uv").symlink_to(find_uv_bin())
        sync = (".uv/bin/uv", "sync", "-q", "--extra", "simulator", "--group", "meltano")
        run(*sync, cwd=root, env=_environment())
        Project(root, _environment(), root / ".venv" / "bin").meltano("install")

    return make_once(tmp_path_factory, "meltano", make) / "tap-noojee"


@contextmanager
def _restored_afterwards(root: Path, meltano: Path, suffix: str) -> Iterator[Project]:
    """Yield a project, then restore meltano.yml and an existing .env, and delete its output."""
    files = {path: path.read_bytes() for path in (root / "meltano.yml", *root.glob(".env"))}
    yield Project(root, _environment(suffix), meltano)
    for path, before in files.items():
        path.write_bytes(before)
    shutil.rmtree(root / "output", ignore_errors=True)


@pytest.fixture
def project(clone: Path, tmp_path: Path) -> Iterator[Project]:
    """The Meltano project in the clone."""
    with _restored_afterwards(clone, clone / ".venv" / "bin", tmp_path.name) as project:
        yield project


@dataclasses.dataclass
class FirstSteps:
    """The project that the README's commands create, their output, and each request's status."""

    project: Project
    printed: str
    statuses: list[int | None]


@pytest.fixture(scope="session")
def first_steps(clone: Path) -> FirstSteps:
    """Run the README's commands for a new project with the simulator, and without the Hub."""
    folder, meltano = clone.parent, clone / ".venv" / "bin"
    run(meltano / "meltano", "init", "own", "--no-usage-stats", cwd=folder, env=_environment())
    new_project = Project(folder / "own", _environment(), meltano)
    # Leave out `PGTZ`, because the README's commands set it in `.env`.
    loader = Project(clone, {}, meltano).plugin("loaders", "target-postgres") | {"env": {}}
    (folder / "loader.yml").write_text(yaml.safe_dump(loader))
    add, _, _ = block("README.md", "meltano add target-postgres", "sh").rpartition("meltano run")
    with Simulator(api_key="the-global-key") as pbx:
        url = {"TAP_NOOJEE_API_URL": pbx.url}
        printed = new_project.shell(block("README.md", "--from-ref", "sh"), env=url)
        printed += new_project.shell(
            add.replace("meltano add", "meltano add --from-ref ../loader.yml")
        )
        return FirstSteps(new_project, printed, [request.status for request in pbx.requests])


@pytest.fixture
def new_project(first_steps: FirstSteps, clone: Path, tmp_path: Path) -> Iterator[Project]:
    """The project of the README's commands, plus target-jsonl and the recipes' plugins."""
    created = first_steps.project
    with _restored_afterwards(created.root, created.bin, tmp_path.name) as new_project:
        content = new_project.content
        plugins = content["plugins"]
        pbxs = yaml.safe_load(block("docs/recipes.md", "inherit_from", "yaml"))
        plugins["extractors"] += pbxs["extractors"]
        plugins |= yaml.safe_load(block("docs/recipes.md", "mappers", "yaml"))
        (mapping,) = plugins["mappers"][0]["mappings"]
        mapping["config"] = yaml.safe_load(block("docs/privacy.md", "sha256", "yaml"))["config"]
        # Meltano installs target-jsonl in the first run.
        plugins["loaders"].append(
            Project(clone, {}, new_project.bin).plugin("loaders", "target-jsonl")
        )
        new_project.content = content
        yield new_project
