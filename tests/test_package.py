"""The built package, and the tap installed from it."""

import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from environments import run
from pages import ROOT, copy_source
from uv import find_uv_bin

slow = pytest.mark.slow

VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist, then the wheel from it, and return their folder."""
    folder = tmp_path_factory.mktemp("package")
    copy_source(folder / "source")
    run(find_uv_bin(), "build", "--out-dir", folder / "dist", folder / "source")
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel without extras, and return the folder of its programs."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    run(find_uv_bin(), "venv", "--python", sys.executable, venv)
    run(find_uv_bin(), "pip", "install", "--python", venv / "bin" / "python", wheel)
    return venv / "bin"


@slow
def test_distributions_pass_twine_check(dist: Path) -> None:
    """The check also renders the README as PyPI does."""
    files = sorted(path.name for path in dist.iterdir() if path.suffix in {".gz", ".whl"})
    assert len(files) == 2
    run(sys.executable, "-m", "twine", "check", "--strict", *files, cwd=dist)


@slow
def test_wheel_contains_only_the_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {"tap_noojee/schemas/recordings.json", "tap_noojee/py.typed"} < set(names)
    folders = {name.split("/")[0] for name in names}
    assert folders == {"tap_noojee", f"tap_noojee-{VERSION}.dist-info"}


@slow
def test_sdist_contains_schema_licence_and_readme(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"schemas/recordings.json", "tap_noojee/py.typed", "LICENSE", "README.md"} < names


@slow
def test_program_and_module_print_the_version(programs: Path, tmp_path: Path) -> None:
    by_name = run(programs / "tap-noojee", "--version", cwd=tmp_path)
    assert by_name.startswith(f"tap-noojee v{VERSION},")
    assert run(programs / "python", "-m", "tap_noojee", "--version", cwd=tmp_path) == by_name


@slow
def test_installed_tap_finds_its_schema(programs: Path, tmp_path: Path) -> None:
    catalog = json.loads(run(programs / "tap-noojee", "--discover", cwd=tmp_path))
    (stream,) = catalog["streams"]
    assert stream["tap_stream_id"] == "recordings"
    schema = (ROOT / "schemas" / "recordings.json").read_text("utf-8")
    assert stream["schema"] == json.loads(schema)


@slow
def test_simulator_without_its_extra_prints_two_ways_to_install_it(programs: Path) -> None:
    simulator = programs / "noojee-simulator"
    process = subprocess.run([simulator, "true"], check=False, capture_output=True, text=True)
    assert process.returncode == 1
    (line,) = process.stderr.splitlines()
    assert "uv run --extra simulator noojee-simulator" in line
    assert "pip install 'tap-noojee[simulator]'" in line


def test_changelog_starts_with_the_current_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    headings = re.findall(r"^## \[(\d[^]]*)\]", changelog, re.MULTILINE)
    assert headings[0] == VERSION
