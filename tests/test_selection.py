"""How catalogs and stream maps select and change fields."""

import copy
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from commands import SAMPLE_HOUR, run_with
from conftest import Run, expected_legs, requested_hours, run_tap

from tap_noojee.simulator import Simulator
from tap_noojee.tap import TapNoojee

DISCOVERED: dict[str, Any] = TapNoojee(config={}, validate_config=False).catalog_dict
FIELDS = set(DISCOVERED["streams"][0]["schema"]["properties"])
REQUIRED = {"CallRecordId", "Leg", "callend"}


def catalog(**changes: Any) -> dict[str, Any]:
    """Return the discovered catalog, with these changes to its stream."""
    changed = copy.deepcopy(DISCOVERED)
    changed["streams"][0] |= changes
    return changed


def with_metadata(**fields: dict[str, Any]) -> dict[str, Any]:
    """Return the discovered catalog, with this metadata for its fields or its stream."""
    changed = copy.deepcopy(DISCOVERED)
    for item in changed["streams"][0]["metadata"]:
        name = item["breadcrumb"][1] if item["breadcrumb"] else "stream"
        item["metadata"] = fields.get(name, item["metadata"])
    return changed


def fields_of(run: Run) -> set[str]:
    """Check the messages of the sample hour, and return the fields of its records."""
    assert run.error is None
    schema = run.messages[0]
    assert (schema["stream"], schema["key_properties"]) == ("recordings", ["CallRecordId", "Leg"])
    assert schema["bookmark_properties"] == ["callend"]
    assert len(run.records) == 4
    (names,) = {frozenset(record) for record in run.records}
    assert names == set(schema["schema"]["properties"])
    return set(names)


DESELECTED = {"inclusion": "available", "selected": False}
CHANGED_STREAM = {
    "stream": "calls",
    "key_properties": [],
    "replication_key": "Start",
    "replication_method": "FULL_TABLE",
    "schema": {"properties": {name: {"type": "integer"} for name in (*FIELDS, "More")}},
}
CHANGED_METADATA = {
    "selected": True,
    "table-key-properties": [],
    "forced-replication-method": "FULL_TABLE",
    "valid-replication-keys": ["Start"],
}

CATALOGS: list[tuple[dict[str, Any], set[str]]] = [
    # Each entry has a catalog and the fields that it deselects.
    (DISCOVERED, set()),
    (catalog(**CHANGED_STREAM), set()),
    (catalog(metadata=[]), set()),
    (with_metadata(stream=CHANGED_METADATA), set()),
    ({"streams": [{"tap_stream_id": "recordings"}]}, set()),
    ({"streams": [{"tap_stream_id": "calls"}, *DISCOVERED["streams"]]}, set()),
    (catalog(schema={"properties": {name: {} for name in FIELDS - {"DID"}}}), {"DID"}),
    (catalog(schema={}), FIELDS - REQUIRED),
    (with_metadata(Source=DESELECTED, Username=DESELECTED), {"Source", "Username"}),
    (with_metadata(Leg=DESELECTED, callend=DESELECTED, CallRecordId=DESELECTED), set()),
    (with_metadata(Tag={"inclusion": "available", "selected-by-default": False}), {"Tag"}),
    (with_metadata(Tag={"inclusion": "unsupported"}), {"Tag"}),
    (with_metadata(**dict.fromkeys(FIELDS, DESELECTED)), FIELDS - REQUIRED),
    # Meltano sets `selected` for every field.
    (
        with_metadata(
            **{name: {"inclusion": "available", "selected": name != "DID"} for name in FIELDS},
            stream={"inclusion": "available", "selected": True},
        ),
        {"DID"},
    ),
]


def test_catalog_selects_fields_and_changes_nothing_else(pbx: Simulator) -> None:
    for content, deselected in CATALOGS:
        run = run_tap(pbx, catalog=content, **SAMPLE_HOUR)
        assert fields_of(run) == FIELDS - deselected, content
        assert run.bookmark_values[-1] == "2021-09-14T06:00:00+00:00", content


def test_deselected_stream_is_skipped(pbx: Simulator) -> None:
    for metadata in ({"selected": False}, {"inclusion": "available"}):
        run = run_tap(pbx, catalog=with_metadata(stream=metadata), **SAMPLE_HOUR)
        assert (run.error, run.messages) == (None, [])
    assert requested_hours(pbx) == []


MISSPELT = {"breadcrumb": ["properties", "source"], "metadata": {"selected": False}}
NO_STREAM, UNREADABLE = "there is no stream 'recordings'", "unreadable"

BAD_CATALOGS: list[tuple[dict[str, Any], str]] = [
    ({"api_key": "k"}, NO_STREAM),  # a settings file instead of a catalog
    ({"streams": []}, NO_STREAM),
    ({"streams": [{"stream": "x"}]}, NO_STREAM),
    (catalog(tap_stream_id="calls"), NO_STREAM),
    ({"streams": None}, UNREADABLE),
    ({"streams": 5}, UNREADABLE),
    ({"streams": [5]}, UNREADABLE),
    ({"streams": {"recordings": {}}}, UNREADABLE),
    (catalog(schema=None), UNREADABLE),
    (catalog(schema={"properties": None}), UNREADABLE),
    (catalog(metadata=None), UNREADABLE),
    (catalog(metadata=[{"metadata": {}}]), UNREADABLE),
    (catalog(tap_stream_id=["recordings"]), UNREADABLE),
    (catalog(metadata=[MISSPELT]), "there is no field 'source'"),
    (with_metadata(Source={"selected": "false"}), "Source: `selected` is not true or false"),
]


def test_bad_catalog_is_a_one_line_error(pbx: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "catalog.json"
    for content, problem in BAD_CATALOGS:
        path.write_text(json.dumps(content))
        line = run_with(pbx, tmp_path, "--catalog", path).error_line
        assert line.startswith(f"catalog: {problem}")
        # Discovering again would not fix a bad `selected`.
        assert ("--discover" in line) is ("selected" not in problem)
    assert requested_hours(pbx) == []


@pytest.mark.parametrize(
    ("maps", "problem"),
    [
        ({"recording": {"Source": "md5(Source)"}}, "'recording': use 'recordings'"),
        ({"Recordings": {"Source": None}}, "'Recordings': use 'recordings'"),
        ({"calls": {"__source__": "Recordings"}}, "'Recordings': use 'recordings'"),
        ({"recordings": {"source": "md5(Source)"}}, "'source': use 'Source'"),
        ({"recordings": {"SOURCE": None}}, "'SOURCE': use 'Source'"),
        ({"rec*": {"source": "__NULL__"}}, "'source': use 'Source'"),
        ({"calls": {"__source__": "recordings", "source": "''"}}, "'source': use 'Source'"),
        ({"recordings": {"Sources": None}}, "'Sources': use 'Source'"),
        ({"recordings": {"Phone": "__NULL__"}}, "'Phone': remove it"),
        ({"recordings": {"__Filter__": "Leg == 1"}}, "'__Filter__' is not one of"),
        ({"recordings": {"__else__": "x"}}, "'__else__' can only be null or '__NULL__'"),
        ({"__else__": "x"}, "'__else__' can only be null or '__NULL__'"),
        ({"__alias__": "calls"}, "'__alias__': use 'recordings'"),
        ({"recordings": "x"}, "'x' is not valid"),
        ({"recordings": {"Source": 5}}, "is not valid"),
        ({"recordings": {"Source": ""}}, "''"),
        ({"recordings": {"__filter__": "Leg =="}}, "Leg =="),
        ({"recordings": {"Leg": None}}, "'Leg'"),
        ({"recordings": None}, "'recordings'"),
        ({"__else__": None}, "'recordings'"),
    ],
)
def test_bad_stream_map_ends_the_run_before_any_request(
    pbx: Simulator, tmp_path: Path, maps: dict[str, Any], problem: str
) -> None:
    for options in ([], ["--test"]):
        line = run_with(pbx, tmp_path, *options, stream_maps=maps).error_line
        assert line.startswith("stream_maps")
        assert problem in line
    assert requested_hours(pbx) == []


def test_stream_maps_are_applied(pbx: Simulator) -> None:
    md5 = hashlib.md5(b"500", usedforsecurity=False).hexdigest()
    cases: list[tuple[dict[str, Any], dict[str, str | None]]] = [
        # Each case has stream maps, and `Source` in the first record of each stream.
        ({"recordings": {"Source": "md5(Source)"}}, {"recordings": md5}),
        ({"recordings": {"Source": None}}, {"recordings": None}),
        ({"rec*": {"Source": "__NULL__"}}, {"recordings": None}),
        ({"recordings": {"pbx": "'north'", "__x": "Leg"}}, {"recordings": "500"}),
        ({"recordings": {"__filter__": "Source != '500'"}}, {}),
        ({"recordings": {"__alias__": "calls", "Source": None}}, {"calls": None}),
        ({"x": {"__source__": "*", "Source": "md5(Source)"}, "recordings": None}, {"x": md5}),
        ({"calls": {"__source__": "recordings"}}, {"recordings": "500", "calls": "500"}),
        ({"__else__": None, "recordings": {}}, {"recordings": "500"}),
    ]
    for maps, expected in cases:
        run = run_tap(pbx, stream_maps=maps, **SAMPLE_HOUR)
        found: dict[str, str | None] = {}
        for message in run.messages:
            if message["type"] == "RECORD":
                found.setdefault(message["stream"], message["record"].get("Source"))
        assert (run.error, found) == (None, expected)
        assert run.bookmark_values[-1] == "2021-09-14T06:00:00+00:00"


def test_stream_map_error_names_the_expression_but_no_value(
    pbx: Simulator, tmp_path: Path
) -> None:
    # A missing source makes sha256 fail. The log must not quote the number in the user name.
    pbx.legs = [
        dataclasses.replace(leg, source=None, username="x0412345678")  # type: ignore[arg-type]
        for leg in expected_legs(pbx, SAMPLE_HOUR["start_date"], SAMPLE_HOUR["end_date"])
    ]
    causes = {
        "sha256(config['salt'] + Source)": "TypeError",
        "1/0": "ZeroDivisionError",
        "int(Username)": "ValueError",
        "Nowhere": "not defined",
        "open('/etc/passwd')": "not defined",
    }
    for expression, cause in causes.items():
        for maps in ({"Source": expression}, {"__filter__": expression}):
            config = {"stream_maps": {"recordings": maps}, "stream_map_config": {"salt": "s"}}
            done = run_with(pbx, tmp_path, **config)
            (line,) = done.logged("ERROR")
            assert done.code == 1
            assert done.log.splitlines()[-1].endswith(line)
            assert line.startswith("stream_maps: ")
            assert expression in line
            assert cause in line
            assert "0412345678" not in done.log
