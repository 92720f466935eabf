"""A clone of this repository, and a new project beside it, both with a real Meltano."""

from __future__ import annotations

import dataclasses
import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from environments import make_once, run
from pages import ROOT, block
from uv import find_uv_bin

from tap_noojee.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from postgres import Postgres

pytest_plugins = ["postgres"]

_IGNORED = ("TAP_NOOJEE_", "TARGET_", "MELTANO_", "LOGLEVEL", "VIRTUAL_ENV", "UV_PROJECT", "PG")
"""Prefixes of variables that would change how the programs behave."""

_GIT = ("git", "-c", "user.name=Nobody", "-c", "user.email=nobody@example.com")


@dataclasses.dataclass
class Project:
    """A Meltano project and the environment of its commands."""

    root: Path
    environment: dict[str, str]
    bin: Path
    """The folder of the program `meltano`."""

    @property
    def content(self) -> dict[str, Any]:
        """The content of meltano.yml."""
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
        """The definition of a plugin in meltano.yml."""
        (found,) = (one for one in self.content["plugins"][kind] if one["name"] == name)
        return dict(found)

    def read(self, pbx: Simulator, start: str, end: str, **more: str) -> None:
        """Set the PBX and the hours to read."""
        self.environment |= {
            "TAP_NOOJEE_API_URL": pbx.url,
            "TAP_NOOJEE_API_KEY": pbx.api_key,
            "TAP_NOOJEE_START_DATE": start,
            "TAP_NOOJEE_END_DATE": end,
            "TAP_NOOJEE_REQUEST_INTERVAL": "0",
        } | more

    def load_into(self, server: Postgres, schema: str = "tap_noojee") -> None:
        """Point target-postgres at this server, and drop the schema."""
        server.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        for name in ("host", "port", "user", "password", "database"):
            self.environment[f"TARGET_POSTGRES_{name.upper()}"] = str(getattr(server, name))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start Meltano as the leader of a process group."""
        return subprocess.Popen(
            [self.bin / "meltano", *arguments],
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,  # a prompt fails
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def meltano(self, *arguments: str, status: int = 0) -> str:
        """Run Meltano and return all output."""
        with self.start(*arguments) as process:
            printed, _ = process.communicate()
        assert process.returncode == status, printed
        return printed

    def shell(self, text: str, answer: str = "", **more: str) -> str:
        """Run a page's commands in a shell with Meltano on its path; return all output."""
        path = f"{self.bin}{os.pathsep}{self.environment['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.root,
            env=self.environment | {"PATH": path} | more,
            input=answer,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def state_id(self, name: str = "dev:tap-noojee-to-target-postgres") -> str:
        """The state id with this test's suffix."""
        return f"{name}:{self.environment['MELTANO_RUN_STATE_ID_SUFFIX']}"

    def bookmark(self, state_id: str) -> dict[str, Any]:
        """The bookmark in a state, or an empty one."""
        state = json.loads(self.meltano("state", "get", state_id).splitlines()[-1])
        found: dict[str, Any] = state.get("singer_state", {}).get("bookmarks", {})
        return dict(found.get("recordings", {}))

    def hours_read(self, state_id: str) -> list[tuple[str, str]]:
        """The ranges of hours in a state."""
        ranges = self.bookmark(state_id).get("hours_read", [])
        return [(item["from"], item["to"]) for item in ranges]


def _environment() -> dict[str, str]:
    rest = {name: value for name, value in os.environ.items() if not name.startswith(_IGNORED)}
    return rest | {
        # Nothing listens there: a command that needs the Hub fails.
        "MELTANO_HUB_URL": "http://127.0.0.1:9",
        "NO_COLOR": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git clone with Meltano and all plugins, installed as the README's first command does."""

    def make(folder: Path) -> None:
        origin, root = folder / "origin", folder / "tap-noojee"
        listed = run("git", "ls-files", "-zco", "--exclude-standard", cwd=ROOT)
        for name in listed.split("\0"):
            if name and (ROOT / name).is_file():
                (origin / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, origin / name)
        run(*_GIT, "init", "-q", cwd=origin)
        run(*_GIT, "add", ".", cwd=origin)
        run(*_GIT, "commit", "-qm", "All of it", cwd=origin)
        run("git", "clone", "-q", origin, root)
        (root / ".uv" / "bin").mkdir(parents=True)
        (root / ".uv" / "bin" / "uv").symlink_to(find_uv_bin())
        sync = (".uv/bin/uv", "sync", "-q", "--extra", "simulator", "--group", "meltano")
        run(*sync, cwd=root, env=_environment())
        Project(root, _environment(), root / ".venv" / "bin").meltano("install")

    return make_once(tmp_path_factory, "meltano", make) / "tap-noojee"


@pytest.fixture
def project(clone: Path, tmp_path: Path) -> Iterator[Project]:
    """The clone's own project."""
    # Each test needs only its own state, so the plugins stay installed.
    suffix = {"MELTANO_RUN_STATE_ID_SUFFIX": tmp_path.name}
    yield Project(clone, _environment() | suffix, clone / ".venv" / "bin")
    shutil.rmtree(clone / "output", ignore_errors=True)


@contextmanager
def _hub(folder: Path, loader: dict[str, Any]) -> Iterator[str]:
    """Serve a Meltano Hub that has one loader, and yield its address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        plugins = folder / "meltano" / "api" / "v1" / "plugins" / "loaders"
        plugins.mkdir(parents=True)
        (plugins / "definition").write_text(json.dumps(loader))
        variants = {
            loader["variant"]: {"ref": f"{address}/{plugins.relative_to(folder)}/definition"}
        }
        index = {"logo_url": "", "default_variant": loader["variant"], "variants": variants}
        (plugins / "index").write_text(json.dumps({loader["name"]: index}))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield address
        server.shutdown()


@dataclasses.dataclass
class FirstSteps:
    """The project that the README's commands create, their output, and the PBX's responses."""

    project: Project
    printed: str
    statuses: list[int | None]


@pytest.fixture(scope="session")
def first_steps(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> FirstSteps:
    """Run the README's commands for a new project; only the PBX's address differs."""
    folder = clone.parent
    meltano = clone / ".venv" / "bin"
    run(meltano / "meltano", "init", "own", "--no-usage-stats", cwd=folder, env=_environment())
    # Without `PGTZ`, which the README puts into `.env`.
    loader = Project(clone, {}, meltano).plugin("loaders", "target-postgres") | {"env": {}}
    own = Project(folder / "own", _environment(), meltano)
    hub = tmp_path_factory.mktemp("hub")
    with (
        Simulator(api_key="the-global-key") as pbx,
        _hub(hub, loader) as url,
    ):
        more = {"TAP_NOOJEE_API_URL": pbx.url, "MELTANO_HUB_URL": url}
        printed = own.shell(block("README.md", "--from-ref", "sh"), **more)
        add, _, _ = block("README.md", "meltano add target-postgres", "sh").rpartition(
            "meltano run"
        )
        printed += own.shell(add, **more)
        return FirstSteps(own, printed, [request.status for request in pbx.requests])


@pytest.fixture(scope="session")
def own_root(first_steps: FirstSteps, clone: Path) -> Path:
    """Add the recipes' plugins and target-jsonl."""
    project = first_steps.project
    content = project.content
    plugins = content["plugins"]
    pbxs = yaml.safe_load(block("docs/recipes.md", "inherit_from", "yaml"))
    plugins["extractors"] += pbxs["extractors"]
    plugins |= yaml.safe_load(block("docs/recipes.md", "mappers", "yaml"))
    (mapping,) = plugins["mappers"][0]["mappings"]
    mapping["config"] = yaml.safe_load(block("docs/privacy.md", "sha256", "yaml"))["config"]
    plugins["loaders"].append(Project(clone, {}, clone).plugin("loaders", "target-jsonl"))
    project.content = content
    project.meltano("install")
    return project.root


@pytest.fixture
def own(own_root: Path, first_steps: FirstSteps, tmp_path: Path) -> Iterator[Project]:
    """The project of the README's commands, with the recipes' plugins."""
    suffix = {"MELTANO_RUN_STATE_ID_SUFFIX": tmp_path.name}
    files = {path: path.read_bytes() for path in (own_root / "meltano.yml", own_root / ".env")}
    yield Project(own_root, _environment() | suffix, first_steps.project.bin)
    for path, before in files.items():
        path.write_bytes(before)
    shutil.rmtree(own_root / "output", ignore_errors=True)
