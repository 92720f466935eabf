"""The pages: their links, and the facts and examples that do not need Meltano."""

import dataclasses
import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import SAMPLE_HOUR
from conftest import FIELDS, FakeClock, expected_legs, run_tap
from pages import ROOT, block, blocks, table
from postgres import Postgres

from tap_noojee.legs import SCHEMA
from tap_noojee.simulator import Simulator
from tap_noojee.streams import RecordingsStream

pytest_plugins = ["postgres"]

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
PRIVACY, OPERATION = "docs/privacy.md", "docs/operation.md"
SALT = "x" * 16


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub creates for a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def stream_maps(containing: str) -> Any:
    """Return the stream maps in the privacy page's only example that contains this text."""
    return yaml.safe_load(block(PRIVACY, containing, "yaml"))["config"]["stream_maps"]


def set_numbers(pbx: Simulator, *numbers: str | None) -> None:
    """Give the PBX one leg for each phone number, as both source and destination."""
    leg = expected_legs(pbx, "2021-09-14T15:03", "2021-09-14T15:04")[0]
    pbx.legs = [
        dataclasses.replace(leg, call_record_id=str(n), source=number, destination=number, did="")  # type: ignore[arg-type]
        for n, number in enumerate(numbers)
    ]


def test_links_resolve() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")):
            if "://" in link:
                continue
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), (page.name, link)
            assert not anchor or anchor in anchors(target), (page.name, link)


def test_pages_use_the_same_state_ids() -> None:
    ids = {
        found
        for page in PAGES
        for found in re.findall(r"\w+:tap-noojee-to-[\w-]+", page.read_text("utf-8"))
    }
    assert ids - {"dev:tap-noojee-to-target-duckdb"} == {"dev:tap-noojee-to-target-postgres"}


def test_readme_shows_a_record_that_the_tap_writes(pbx: Simulator) -> None:
    record = run_tap(pbx, **SAMPLE_HOUR).records[-1]
    documented = json.loads(block("README.md", '"callend"', "json"))
    assert documented.items() <= record.items()


def test_pages_list_all_fields() -> None:
    assert tuple(json.loads(block("README.md", '"callend"', "json"))) == FIELDS
    columns = table("docs/data.md", "column", "type", "meaning", "source")
    assert set(columns) == set(FIELDS)
    for name, prop in SCHEMA["properties"].items():
        kind = columns[name][0].partition(",")[0]
        assert kind == prop.get("format") or kind in prop["type"], name


def test_pages_describe_the_stream_and_its_state(pbx: Simulator) -> None:
    glance = table("README.md", "", "")
    assert tuple(glance["Primary key"][0].split("`, `")) == RecordingsStream.primary_keys
    assert "Incremental" in glance["Replication method"][0]
    state = json.loads(block(OPERATION, "hours_read", "json"))
    run = run_tap(pbx, start_date="2021-09-14", end_date="2021-09-14T16:00")
    state["bookmarks"]["recordings"]["pbx"] = "127.0.0.1"
    assert run.states[-1] == state


@pytest.mark.slow
def test_lookback_costs_as_many_requests_as_documented(pbx: Simulator) -> None:
    clock = FakeClock("2021-09-14T00:10:00+10:00")
    first = run_tap(pbx, clock=clock, start_date="2021-09-12")
    counts = []
    for hourly, nightly in ((0, 0), (2, 2), (0, 26)):
        state, before = first.states[-1], len(pbx.requests)
        for hour in range(1, 25):
            clock = FakeClock(f"2021-09-{14 + hour // 24}T{hour % 24:02}:10:00+10:00")
            lookback = nightly if hour == 24 else hourly
            run = run_tap(
                pbx, clock=clock, start_date="2021-09-12", state=state, lookback_hours=lookback
            )
            state = run.states[-1]
        counts.append(len(pbx.requests) - before)
    rows = table(OPERATION, "", "requests a day")
    assert [int(cells[0]) for cells in rows.values()] == counts


def test_masking_replaces_the_last_four_digits(pbx: Simulator) -> None:
    set_numbers(pbx, "0412345678", None, "")
    run = run_tap(pbx, **SAMPLE_HOUR, stream_maps=stream_maps("xxxx"))
    assert run.error is None
    assert [record["Source"] for record in run.records] == ["041234xxxx", None, ""]
    assert "Username" not in run.messages[0]["schema"]["properties"]
    assert not any("Username" in record for record in run.records)


def test_all_forms_of_a_number_have_the_same_hash(pbx: Simulator) -> None:
    set_numbers(pbx, "0412345678", "+61412345678", "0412 345 678", "500", None)
    maps = stream_maps("sha256")
    run = run_tap(pbx, **SAMPLE_HOUR, stream_maps=maps, stream_map_config={"salt": SALT})
    assert run.error is None
    hashed = [sha256(f"{SALT}{n}".encode()).hexdigest() for n in (*["412345678"] * 3, "500")]
    assert [record["Source"] for record in run.records] == [*hashed, None]
    assert [record["Destination"] for record in run.records] == [*hashed, None]
    assert {record["DID"] for record in run.records} == {""}


@pytest.mark.parametrize("config", [{"salt": "x" * 15}, {"salt": ""}, {}])
def test_hashing_with_a_short_or_missing_salt_writes_nothing(
    pbx: Simulator, config: dict[str, str]
) -> None:
    run = run_tap(pbx, **SAMPLE_HOUR, stream_maps=stream_maps("sha256"), stream_map_config=config)
    assert run.error is not None
    assert not run.records


def test_faker_seed_generates_the_same_names_in_each_run(pbx: Simulator) -> None:
    faker: dict[str, Any] = {
        "stream_maps": {"recordings": {"Username": "fake.user_name()"}},
        "faker_config": {"seed": 7, "locale": "en_AU"},
    }
    runs = [run_tap(pbx, **SAMPLE_HOUR, **faker) for _ in range(2)]
    names = [[record["Username"] for record in run.records] for run in runs]
    assert names[0] == names[1]
    assert "NoojeeAdmin" not in names[0]


@pytest.mark.slow
def test_erasure_and_retention_delete_only_matching_rows(server: Postgres) -> None:
    by_age, by_number, by_hash = blocks(PRIVACY, "sql")
    salt = "a-long-random-text"
    assert f"'{salt}'" in by_hash
    assert salt in block(PRIVACY, "TAP_NOOJEE_STREAM_MAP_CONFIG", "sh")
    hashed = sha256(f"{salt}412345678".encode()).hexdigest()
    numbers = ["0412345678", "+61412345678", "0412 345 678", "0412345679", "500", hashed, "", None]

    def remaining(delete: str, ages: tuple[int, ...] = (1,)) -> list[str | None]:
        """Fill the table, run a DELETE, and return the sources that remain.

        Each number is the source in one row and the destination in another.
        """
        server.execute("DROP SCHEMA IF EXISTS tap_noojee CASCADE")
        server.execute("CREATE SCHEMA tap_noojee")
        server.execute(
            "CREATE TABLE tap_noojee.recordings"
            ' ("Source" text, "Destination" text, callend timestamp)'
        )
        for number in numbers:
            value = "NULL" if number is None else f"'{number}'"
            for age in ages:
                ended = f"now() AT TIME ZONE 'UTC' - INTERVAL '{age} days'"
                for pair in (f"{value}, '500'", f"'500', {value}"):
                    server.execute(f"INSERT INTO tap_noojee.recordings VALUES ({pair}, {ended})")  # noqa: S608
        server.execute(delete)
        rows = server.query('SELECT "Source", "Destination" FROM tap_noojee.recordings')
        assert len(rows) % 2 == 0  # both rows of a number, or neither
        return [source for source, destination in rows if destination == "500"]

    assert set(remaining(by_number)) == set(numbers) - set(numbers[:3])
    assert set(remaining(by_hash)) == set(numbers) - {hashed}
    recent = remaining(by_age)
    assert recent
    assert len(remaining(by_age, (700, 740))) == len(recent)
