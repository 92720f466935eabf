"""The SDK's standard tests, and a few of our own."""

from collections.abc import Iterator
from typing import Any

import pytest
from conftest import run_tap
from singer_sdk.testing import get_tap_test_class

from tap_noojee.simulator import API_KEY, Leg, Simulator
from tap_noojee.tap import TapNoojee

CONFIG: dict[str, Any] = {
    "api_url": "http://127.0.0.1:9",  # replaced by the URL of the simulator
    "api_key": API_KEY,
    "start_date": "2021-09-14",
    "end_date": "2021-09-15",
    "request_interval": 0,
}

TestTapNoojee = get_tap_test_class(TapNoojee, config=CONFIG, parse_env_config=False)


@pytest.fixture(scope="module", autouse=True)
def _pbx() -> Iterator[None]:
    # The SDK's tests read only the latest hour, so give every hour a leg.
    with Simulator(legs=lambda start, _: [Leg(start, start, "1")]) as simulator:
        CONFIG["api_url"] = simulator.url
        yield


def test_batch_config_is_ignored(pbx: Simulator) -> None:
    """With batches, the SDK would write STATE before the records that it covers."""
    batch = {"encoding": {"format": "jsonl"}, "storage": {"root": "file:///nowhere"}}
    run = run_tap(pbx, start_date="2021-09-14", end_date="2021-09-15", batch_config=batch)
    assert {message["type"] for message in run.messages} == {"SCHEMA", "RECORD", "STATE"}
    assert "batch" not in [capability.value for capability in TapNoojee.capabilities]
    assert "batch_config" not in TapNoojee.config_jsonschema["properties"]


def test_catalog_has_keys_replication_method_and_descriptions() -> None:
    (stream,) = TapNoojee(config={}, validate_config=False).catalog_dict["streams"]
    assert list(stream["key_properties"]) == ["CallRecordId", "Leg"]
    assert stream["replication_key"] == "callend"
    assert stream["replication_method"] == "INCREMENTAL"
    (metadata,) = (item["metadata"] for item in stream["metadata"] if not item["breadcrumb"])
    assert metadata["forced-replication-method"] == "INCREMENTAL"
    fields = stream["schema"]["properties"]
    assert all(field["description"] for field in fields.values())
    not_nullable = {name for name, field in fields.items() if "null" not in field["type"]}
    assert not_nullable == {"CallRecordId", "Leg", "callend"}
