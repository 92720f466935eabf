"""The definitions for Meltano and its Hub match the tap and the README, and work in Meltano."""

import json
import os
import sys
import tomllib
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
import yaml
from environments import run
from pages import ROOT, copy_source, table
from singer_sdk import Tap
from uv import find_uv_bin

from tap_noojee.tap import TapNoojee

(DEFINITION,) = (ROOT / "plugins" / "extractors").glob("tap-noojee--*.yml")
HUB: dict[str, Any] = yaml.safe_load(DEFINITION.read_text("utf-8"))
MELTANO_YML: dict[str, Any] = yaml.safe_load((ROOT / "meltano.yml").read_text("utf-8"))
(EXTRACTOR,) = MELTANO_YML["plugins"]["extractors"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

TapNoojee.append_builtin_config(TapNoojee.config_jsonschema)
PROPERTIES: dict[str, dict[str, Any]] = TapNoojee.config_jsonschema["properties"]
REQUIRED = TapNoojee.config_jsonschema["required"]


def own_settings() -> list[str]:
    """Return the names of the tap's own settings. The SDK's settings depend on its version."""
    sdk: dict[str, Any] = {}
    Tap.append_builtin_config(sdk)
    return [name for name in PROPERTIES if PROPERTIES[name] != sdk["properties"].get(name)]


def kind(prop: dict[str, Any]) -> str:
    """Return the Hub's name for the type of a setting."""
    if prop.get("format") == "date-time":
        return "date_iso8601"  # Meltano's relative dates need this kind.
    if "enum" in prop:
        return "options"
    if "oneOf" in prop:
        return "array" if any(choice["type"] == "array" for choice in prop["oneOf"]) else "string"
    return str(next(name for name in prop["type"] if name != "null"))


def expected_definition(name: str) -> dict[str, Any]:
    """Return a setting as the definitions must list it, without its label."""
    prop = PROPERTIES[name]
    definition = {"name": name, "kind": kind(prop), "description": prop["description"]}
    if "default" in prop and name != "user_agent":  # The default contains the version.
        definition["value"] = prop["default"]
    if "enum" in prop:
        definition["options"] = [
            {"label": value.replace("_", " ").capitalize(), "value": value}
            for value in prop["enum"]
        ]
    return definition | ({"sensitive": True} if prop.get("secret") else {})


@pytest.mark.parametrize("definition", [HUB, EXTRACTOR], ids=["hub", "meltano"])
def test_definition_lists_the_settings_of_the_tap(definition: dict[str, Any]) -> None:
    listed = {setting["name"]: setting for setting in definition["settings"]}
    assert all(setting["label"] for setting in listed.values())
    own = own_settings()
    for name in own:
        assert expected_definition(name) == {k: v for k, v in listed[name].items() if k != "label"}
    # The other settings are the SDK's.
    for name in listed.keys() - set(own):
        parent, _, part = name.partition(".")
        prop = PROPERTIES[parent]
        assert listed[name]["kind"] == kind(prop["properties"][part] if part else prop)
        # The value of stream_map_config contains the salt of hashed numbers.
        assert listed[name].get("sensitive", False) == (name == "stream_map_config")
    assert {"stream_maps", "stream_map_config"} <= listed.keys()


def test_hub_and_meltano_yml_agree() -> None:
    assert sorted(EXTRACTOR["settings"], key=itemgetter("name")) == HUB["settings"]
    assert sorted(EXTRACTOR["capabilities"]) == HUB["capabilities"]
    assert EXTRACTOR["settings_group_validation"] == HUB["settings_group_validation"]
    assert HUB["settings_group_validation"] == [sorted(REQUIRED)]


def test_readme_lists_the_settings_in_order_with_types_and_defaults() -> None:
    rows = table("README.md", "setting", "type", "default", "meaning")
    assert [*rows] == own_settings()
    kinds = {"date_iso8601": "date-time", "options": "string"}
    for name, (type_, default, meaning) in rows.items():
        prop = PROPERTIES[name]
        secret = ", secret" if prop.get("secret") else ""
        assert type_ == kinds.get(kind(prop), kind(prop)) + secret, name
        expected = "required" if name in REQUIRED else str(prop.get("default", ""))
        assert default == ("tap-noojee/<version>" if name == "user_agent" else expected), name
        assert meaning, name


def test_hub_definition_describes_the_tap_and_its_package() -> None:
    capabilities = {capability.value for capability in TapNoojee.capabilities}
    # Meltano runs discovery, and passes the catalog and the state, only if these are listed.
    assert {"catalog", "discover", "state"} <= set(HUB["capabilities"]) <= capabilities
    assert "batch" not in capabilities  # a batch's STATE would come before its records
    versions = [line.rpartition(" :: ")[2] for line in PROJECT["classifiers"] if ":: 3." in line]
    assert HUB["supported_python_versions"] == versions
    assert HUB["pip_url"] == PROJECT["name"]
    assert HUB["executable"] in PROJECT["scripts"]
    assert HUB["namespace"] == HUB["name"].replace("-", "_")
    assert DEFINITION.stem == f"{HUB['name']}--{HUB['variant']}"


def meltano(project: Path, *arguments: str, **environment: str) -> str:
    """Run Meltano in the project, without access to the Hub, and return its output."""
    env = os.environ | environment | {"MELTANO_HUB_URL": "http://127.0.0.1:9", "NO_COLOR": "1"}
    return run(project.parent / "venv/bin/meltano", *arguments, cwd=project, env=env)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new project to which Meltano added the tap, with a copy of its source as `pip_url`."""
    folder = tmp_path_factory.mktemp("hub")
    copy_source(folder / "source")
    run(find_uv_bin(), "venv", "--python", sys.executable, folder / "venv")
    install = (find_uv_bin(), "pip", "install", "--python", folder / "venv/bin/python")
    run(*install, "--group", f"{ROOT / 'pyproject.toml'}:meltano")
    project = folder / "project"
    project.mkdir()
    (project / "meltano.yml").write_text("send_anonymous_usage_stats: false\n")
    text = DEFINITION.read_text("utf-8")
    pip_url = f"pip_url: {folder / 'source'}"
    (folder / "definition.yml").write_text(text.replace("pip_url: tap-noojee", pip_url), "utf-8")
    meltano(project, "add", "tap-noojee", "--from-ref", str(folder / "definition.yml"))
    return project


@pytest.mark.slow
def test_meltano_adds_the_whole_definition_to_a_project(project: Path) -> None:
    content = yaml.safe_load((project / "meltano.yml").read_text("utf-8"))
    (added,) = content["plugins"]["extractors"]
    for part in ("settings", "capabilities", "settings_group_validation", "variant"):
        assert added[part] == HUB[part]
    listed = meltano(project, "select", "tap-noojee", "--list", "--all")
    assert "recordings.CallRecordId" in listed


@pytest.mark.slow
def test_meltano_hides_secrets_and_passes_numbers_and_dates(project: Path) -> None:
    environment = {
        "TAP_NOOJEE_API_KEY": "the-secret-key",
        "TAP_NOOJEE_STREAM_MAP_CONFIG": '{"salt": "the-secret-salt"}',
        "TAP_NOOJEE_REQUEST_INTERVAL": "0",
        "TAP_NOOJEE_START_DATE": "2021-09-14",
    }
    printed = meltano(project, "config", "print", "tap-noojee", "--format=json", **environment)
    config = json.loads(printed)
    assert (config["request_interval"], config["start_date"]) == (0, "2021-09-14")
    listed = meltano(project, "config", "list", "tap-noojee", "--all", **environment)
    assert "the-secret" not in printed + listed
