"""The package as it is built, checked, installed and run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from uv import find_uv_bin

if TYPE_CHECKING:
    from subprocess import CompletedProcess

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]


def run(*command: str | Path, cwd: Path) -> CompletedProcess[str]:
    """Run a command to its end, whatever that is."""
    return subprocess.run(command, cwd=cwd, check=False, capture_output=True, text=True)


def output(*command: str | Path, cwd: Path) -> str:
    """Give the output of a command that has to succeed."""
    process = run(*command, cwd=cwd)
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist, and of it the wheel, from a copy without what earlier builds left."""
    folder = tmp_path_factory.mktemp("package")
    unwanted = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "output")
    shutil.copytree(ROOT, folder / "source", ignore=unwanted)
    output(find_uv_bin(), "build", "--out-dir", folder / "dist", folder / "source", cwd=folder)
    return folder / "dist"


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    """Find the wheel."""
    (found,) = dist.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel alone in a fresh environment and give the folder of its programs."""
    folder = tmp_path_factory.mktemp("installed")
    programs = folder / "venv" / "bin"
    output(find_uv_bin(), "venv", "--python", sys.executable, "venv", cwd=folder)
    output(
        *(find_uv_bin(), "pip", "install", "--python", programs / "python", wheel),
        cwd=folder,
    )
    return programs


def test_the_package_index_would_take_what_is_built(dist: Path) -> None:
    """Both distributions pass twine's strict check, which renders the README."""
    files = sorted(path.name for path in dist.iterdir() if path.suffix in {".gz", ".whl"})
    assert len(files) == 2
    output(sys.executable, "-m", "twine", "check", "--strict", *files, cwd=dist)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """A wheel has the stream's schema and the mark of typed code, and one folder to import."""
    names = zipfile.ZipFile(wheel).namelist()
    assert {"tap_noojee/schemas/recordings.json", "tap_noojee/py.typed"} < set(names)
    folders = {name.split("/")[0] for name in names}
    assert folders == {"tap_noojee", f"tap_noojee-{VERSION}.dist-info"}


def test_the_sdist_holds_what_the_wheel_is_built_from(dist: Path) -> None:
    """An sdist has the schema where the repository has it, the mark, licence and README."""
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"schemas/recordings.json", "tap_noojee/py.typed", "LICENSE", "README.md"} < names


def test_an_installed_tap_prints_its_version(programs: Path, tmp_path: Path) -> None:
    """The program and the module are the same tap."""
    by_name = output(programs / "tap-noojee", "--version", cwd=tmp_path)
    assert by_name.startswith(f"tap-noojee v{VERSION},")
    assert output(programs / "python", "-m", "tap_noojee", "--version", cwd=tmp_path) == by_name


def test_an_installed_tap_finds_its_schema(programs: Path, tmp_path: Path) -> None:
    """Discovery needs neither settings nor the repository."""
    catalog = json.loads(output(programs / "tap-noojee", "--discover", cwd=tmp_path))
    (stream,) = catalog["streams"]
    assert stream["tap_stream_id"] == "recordings"
    schema = (ROOT / "schemas" / "recordings.json").read_text("utf-8")
    assert stream["schema"] == json.loads(schema)


def test_an_installed_tap_describes_itself(programs: Path, tmp_path: Path) -> None:
    """What --about prints is JSON, for the tools that ask."""
    about = json.loads(output(programs / "tap-noojee", "--about", "--format=json", cwd=tmp_path))
    assert (about["name"], about["version"]) == ("tap-noojee", VERSION)


def test_a_plain_install_is_without_the_simulators_server(programs: Path, tmp_path: Path) -> None:
    """The simulator of a plain install says in one line which extra it needs."""
    assert not [*programs.parent.glob("lib/*/site-packages/werkzeug")]
    process = run(programs / "noojee-simulator", cwd=tmp_path)
    assert process.returncode == 1
    (line,) = process.stderr.splitlines()
    assert "tap-noojee[simulator]" in line


def test_the_newest_release_of_the_changelog_is_this_one() -> None:
    """A version is set in pyproject.toml, and the changelog has a heading for it."""
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    headings = re.findall(r"^## \[(\d[^]]*)\]", changelog, re.MULTILINE)
    assert headings[0] == VERSION
