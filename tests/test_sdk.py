"""The SDK's own suite, and tests in place of the two of it that cannot fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from conftest import run_tap
from singer_sdk.testing import get_tap_test_class

from tap_noojee.simulator import API_KEY, Simulator
from tap_noojee.tap import TapNoojee

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG: dict[str, Any] = {
    "api_url": "http://127.0.0.1:9",  # put right below, when there is a simulator
    "api_key": API_KEY,
    "start_date": "2021-09-14",
    "end_date": "2021-09-15",
    "request_interval": 0,
}

TestTapNoojee = get_tap_test_class(TapNoojee, config=CONFIG, parse_env_config=False)


@pytest.fixture(scope="module", autouse=True)
def _pbx() -> Iterator[None]:
    # So many calls that there are some in the last hour, whenever the tests are run.
    with Simulator(volume=50) as simulator:
        CONFIG["api_url"] = simulator.url
        yield


def test_keys_are_unique_and_never_null(pbx: Simulator) -> None:
    """No two records of a run have the same key, and none lacks a part of it."""
    run = run_tap(pbx, start_date="2021-09-13", end_date="2021-09-18")
    assert len(set(run.keys)) == len(run.keys) > 500
    assert all(record_id and leg for record_id, leg in run.keys)


def test_the_last_state_is_a_bookmark_and_nothing_else(pbx: Simulator) -> None:
    """STATE holds a bookmark only: no marker of a run in progress."""
    run = run_tap(pbx, start_date="2021-09-14", end_date="2021-09-15")
    assert run.messages[-1] == {
        "type": "STATE",
        "value": {
            "bookmarks": {
                "recordings": {
                    "replication_key": "callend",
                    "replication_key_value": "2021-09-14T14:00:00+00:00",
                    "since": "2021-09-13T14:00:00+00:00",
                    "owed": [],
                    "timezone": "Australia/Melbourne",
                }
            }
        },
    }


def test_batch_mode_is_not_offered(pbx: Simulator) -> None:
    """Asked for batches, the tap writes records: a batch's STATE would come before its records."""
    batch = {
        "encoding": {"format": "jsonl"},
        "storage": {"root": "file:///nowhere"},
    }
    run = run_tap(pbx, start_date="2021-09-14", end_date="2021-09-15", batch_config=batch)
    assert {m["type"] for m in run.messages} == {"SCHEMA", "RECORD", "STATE"}
    assert "batch" not in [capability.value for capability in TapNoojee.capabilities]
    assert "batch_config" not in TapNoojee.config_jsonschema["properties"]


def test_every_field_of_the_schema_is_described() -> None:
    """Each field of the schema says what it is; keys and callend are required and never null."""
    (stream,) = TapNoojee(config={}, validate_config=False).catalog_dict["streams"]
    schema = stream["schema"]
    assert len(schema["properties"]) == 12
    assert all(field["description"] for field in schema["properties"].values())
    for name, field in schema["properties"].items():
        assert ("null" in field["type"]) == (name not in {"callend", "CallRecordId", "Leg"})
    assert list(stream["key_properties"]) == ["CallRecordId", "Leg"]
    assert stream["replication_key"] == "callend"
    assert stream["replication_method"] == "INCREMENTAL"
