"""The definition for Meltano Hub, held to the tap, to meltano.yml and to a real Meltano."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from uv import find_uv_bin

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
(DEFINITION,) = (ROOT / "plugins" / "extractors").glob("tap-noojee--*.yml")


def output(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    """Give the output of a command that has to succeed."""
    process = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture(scope="session")
def definition() -> dict[str, Any]:
    """Read the definition for the Hub."""
    content: dict[str, Any] = yaml.safe_load(DEFINITION.read_text("utf-8"))
    return content


@pytest.fixture(scope="session")
def about() -> dict[str, Any]:
    """What the tap says of itself, as the Hub's own tool asks for it."""
    found = output(sys.executable, "-m", "tap_noojee", "--about", "--format=json")
    content: dict[str, Any] = json.loads(found)
    return content


@pytest.fixture(scope="session")
def extractor() -> dict[str, Any]:
    """Read what meltano.yml has of the tap."""
    project = yaml.safe_load((ROOT / "meltano.yml").read_text("utf-8"))
    found: dict[str, Any]
    (found,) = (one for one in project["plugins"]["extractors"] if one["name"] == "tap-noojee")
    return found


def as_in_the_hub(schema: dict[str, Any], parents: str = "") -> Iterator[dict[str, Any]]:
    """Give the settings of a schema as the Hub has them."""
    for name, setting in schema["properties"].items():
        if name == "faker_config":  # In the Hub, the parts stand for it.
            yield from as_in_the_hub(setting, f"{name}.")
            continue
        found = {"name": parents + name, "kind": kind(setting), "label": setting["title"]}
        found["description"] = setting["description"]
        if "default" in setting:
            found["value"] = setting["default"]
        if "enum" in setting:
            found["options"] = [
                {"label": value.replace("_", " ").capitalize(), "value": value}
                for value in setting["enum"]
            ]
        if setting.get("secret"):
            found["sensitive"] = True
        yield found


def kind(setting: dict[str, Any]) -> str:
    """Give the Hub's word for the type of a setting."""
    if setting.get("format") == "date-time":
        return "date_iso8601"
    if "enum" in setting:
        return "options"
    if "oneOf" in setting:
        return "array" if any(one["type"] == "array" for one in setting["oneOf"]) else "string"
    found: str = setting["type"][0]
    return found


def test_the_hub_has_the_settings_of_the_tap(
    definition: dict[str, Any], about: dict[str, Any]
) -> None:
    """Names, labels, descriptions, kinds, defaults, choices and secrets are the tap's own."""
    found = as_in_the_hub(about["settings"])
    assert definition["settings"] == sorted(found, key=lambda setting: str(setting["name"]))


def test_the_hub_asks_for_what_the_tap_requires(
    definition: dict[str, Any], about: dict[str, Any]
) -> None:
    """There is one set of settings with which the tap can run."""
    assert definition["settings_group_validation"] == [sorted(about["settings"]["required"])]


@pytest.mark.parametrize("what", ["capabilities", "supported_python_versions"])
def test_the_hub_promises_what_the_tap_can_do(
    definition: dict[str, Any], about: dict[str, Any], what: str
) -> None:
    """Capabilities and versions of Python are the tap's own, in the Hub's order."""
    assert definition[what] == sorted(about[what])


def test_the_hub_knows_the_package(definition: dict[str, Any]) -> None:
    """The definition has the names of the package, and its file those of tap and variant."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert definition["pip_url"] == project["name"]
    assert definition["executable"] in project["scripts"]
    assert definition["namespace"] == definition["name"].replace("-", "_")
    assert DEFINITION.stem == f"{definition['name']}--{definition['variant']}"


def test_meltano_yml_has_what_the_hub_has(
    definition: dict[str, Any], extractor: dict[str, Any]
) -> None:
    """The project's own extractor differs in nothing: Meltano ignores settings it has not."""
    ours = sorted(extractor["settings"], key=lambda setting: str(setting["name"]))
    assert ours == definition["settings"]
    for what in ("capabilities", "settings_group_validation"):
        assert sorted(extractor[what]) == definition[what]


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Add the tap by its definition to an empty project, with a Meltano of its own.

    What is installed is a copy of the repository; all else is as the definition has it.
    """
    folder = tmp_path_factory.mktemp("hub")
    group = f"{ROOT / 'pyproject.toml'}:meltano"
    unwanted = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "output")
    shutil.copytree(ROOT, folder / "source", ignore=unwanted)
    output(find_uv_bin(), "venv", "--python", sys.executable, "venv", cwd=folder)
    output(
        *(find_uv_bin(), "pip", "install", "--python", "venv/bin/python", "--group", group),
        cwd=folder,
    )
    project = folder / "project"
    project.mkdir()
    (project / "meltano.yml").write_text("send_anonymous_usage_stats: false\n")
    text = DEFINITION.read_text("utf-8")
    pip_url = f"pip_url: {folder / 'source'}"
    (folder / "definition.yml").write_text(text.replace("pip_url: tap-noojee", pip_url), "utf-8")
    meltano(project, "add", "tap-noojee", "--from-ref", str(folder / "definition.yml"))
    return project


def meltano(project: Path, *arguments: str, **environment: str) -> str:
    """Run the project's Meltano, out of reach of the Hub."""
    environment |= {"MELTANO_HUB_URL": "http://127.0.0.1:9", "NO_COLOR": "1"}
    return output(project.parent / "venv/bin/meltano", *arguments, cwd=project, **environment)


@pytest.mark.slow
def test_an_empty_project_gets_all_settings(project: Path, definition: dict[str, Any]) -> None:
    """`meltano add --from-ref` needs no Hub and leaves out no setting and no capability."""
    content = yaml.safe_load((project / "meltano.yml").read_text("utf-8"))
    (added,) = content["plugins"]["extractors"]
    for what in ("settings", "capabilities", "settings_group_validation", "variant"):
        assert added[what] == definition[what]


@pytest.mark.slow
def test_an_empty_project_runs_the_tap(project: Path) -> None:
    """The added tap is installed under its name, and Meltano can discover its stream."""
    listed = meltano(project, "select", "tap-noojee", "--list", "--all")
    assert "recordings.CallRecordId" in listed


@pytest.mark.slow
def test_an_empty_project_knows_kinds_and_secrets(project: Path) -> None:
    """Numbers of the environment arrive as numbers, dates as they are, and secrets are hidden."""
    printed = meltano(
        *(project, "config", "print", "tap-noojee", "--format=json"),
        TAP_NOOJEE_API_KEY="not-to-be-seen",
        TAP_NOOJEE_REQUEST_INTERVAL="0",
        TAP_NOOJEE_START_DATE="2021-09-14",
    )
    config = json.loads(printed)
    assert (config["request_interval"], config["start_date"]) == (0, "2021-09-14")
    assert "not-to-be-seen" not in printed
