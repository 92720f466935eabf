"""Settings: defaults, accepted forms, and errors before any request."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from commands import run_command, run_with, variables
from conftest import requested_hours, run_tap, settings

from tap_noojee.settings import build_api_url
from tap_noojee.simulator import API_KEY, Simulator
from tap_noojee.tap import TapNoojee

MINIMUMS = {
    "request_interval": 0,
    "settle_minutes": 0,
    "lookback_hours": 0,
    "max_hours_per_run": 1,
    "request_timeout": 1,
}
"""The numeric settings, with their minimum values."""

SCHEMA = TapNoojee.config_jsonschema
OPTIONAL = {n: prop for n, prop in SCHEMA["properties"].items() if n not in SCHEMA["required"]}

BAD_SETTINGS: list[tuple[str, str, list[Any]]] = [
    # Each entry has a setting, a part of its error message, and the values that cause it.
    ("api_url", "is missing", [None, ""]),
    ("api_url", "5 is not of type 'string'", [5]),
    ("api_url", "is not a URL", [
        "pbx.invalid", "https://", "https://:443/x", "https://pbx.invalid:0",
        "https://pbx.invalid:65536", "https://pbx..invalid", f"https://{'x' * 64}.invalid",
        "https://pbx.invalid/a b", "https://pbx.invalid/a\nb",
    ]),
    ("api_url", "does not start with https://", [
        "http://pbx.invalid", "http://localhost.invalid", "http://0.0.0.0", "ftp://127.0.0.1",
    ]),
    ("api_url", "has a user", ["https://me@pbx.invalid"]),
    ("api_url", "has a query", ["https://pbx.invalid?hour=1"]),
    ("api_url", "has a fragment", ["https://pbx.invalid#top"]),
    ("api_key", "is missing: The Global API key", [None, ""]),
    ("api_key", "whitespace", [f"{API_KEY}\n"]),
    ("api_key", "is not a string", [5070652152]),
    ("start_date", "is missing", [None]),
    ("start_date", "'14/09/2021' is not a date or time such as 2021-09-14", ["14/09/2021"]),
    ("start_date", "is not a date", ["2021-02-30", "15:00", "now", API_KEY]),
    ("start_date", "is not between 1971 and 8999", ["1970-12-31T23:59", "9000-01-01"]),
    ("start_date", "is not of type 'string'", [20210914, ["2021-09-14"]]),
    ("end_date", "'tomorrow' is not a date", ["tomorrow"]),
    ("end_date", "is not of type 'string'", [20210914]),
    ("end_date", "is not after start_date", ["2021-09-14T15:00", "2021-09-14T05:00:00Z"]),
    ("timezone", "'Melbourne' is not a time zone", ["Melbourne"]),
    ("timezone", "is not a time zone", ["Australia", "../etc/passwd", " "]),
    ("timezone", "is not of type 'string'", [[]]),
    ("backfill_order", "'random' is not one of ['oldest_first', 'newest_first']", ["random"]),
    ("backfill_order", "(not shown", [API_KEY]),
    ("request_interval", "is not of type 'integer'", ["60", 1.5, True]),
    ("request_interval", "(not shown", [API_KEY]),
    ("user_agent", "printable ASCII", ["tap\r\nX: y", "täp", " tap"]),
    ("stream_maps", "is not of type 'object'", ["recordings"]),
    ("stream_maps", "contains the API key", [{"recordings": {"Tag": API_KEY}}]),
    ("flattening_max_depth", "is not of type 'integer'", ["deep"]),
    *((name, f"{minimum - 1} is ", [minimum - 1]) for name, minimum in MINIMUMS.items()),
    *((name, "100001 is greater than the maximum of 100000", [100_001]) for name in MINIMUMS),
]  # fmt: skip


def test_bad_setting_ends_the_run_before_any_request(pbx: Simulator, tmp_path: Path) -> None:
    for name, problem, values in BAD_SETTINGS:
        for value in values:
            done = run_with(pbx, tmp_path, **{name: value})
            assert re.match(rf"{name}\b", done.error_line), (name, value)
            assert problem in done.error_line, (name, value)
            assert API_KEY[:8] not in done.log, (name, value)
            assert ".invalid" not in done.log, (name, value)  # no message quotes the URL
    assert requested_hours(pbx) == []


def test_all_bad_settings_are_reported_together(pbx: Simulator, tmp_path: Path) -> None:
    for bad in (
        {"api_url": None, "api_key": None, "timezone": "Mars"},
        {"request_interval": -1, "settle_minutes": -5},
    ):
        lines = run_with(pbx, tmp_path, **bad).logged("ERROR")
        assert sorted(re.split(r"\W", line)[0] for line in lines) == sorted(bad)


@pytest.mark.parametrize("lookback", [5, 6])
def test_max_hours_per_run_must_exceed_lookback_hours(pbx: Simulator, lookback: int) -> None:
    run = run_tap(pbx, lookback_hours=lookback, max_hours_per_run=5)
    assert "max_hours_per_run: 5 is not greater than lookback_hours" in str(run.error)
    assert run_tap(pbx, lookback_hours=4, max_hours_per_run=5).error is None


def test_lowest_and_highest_values_are_accepted(pbx: Simulator) -> None:
    for name, minimum in MINIMUMS.items():
        for value in (minimum, 100_000):
            assert TapNoojee(config=settings(pbx, **{name: value})).config[name] == value
    for start in ("1971-01-01", "8999-12-31T23:59"):
        assert TapNoojee(config=settings(pbx, start_date=start)).config["start_date"] == start


@pytest.mark.parametrize("empty", [None, ""])
def test_empty_optional_setting_gets_its_default(pbx: Simulator, empty: Any) -> None:
    tap = TapNoojee(config=settings(pbx) | dict.fromkeys(OPTIONAL, empty))
    defaults = {n: prop["default"] for n, prop in OPTIONAL.items() if "default" in prop}
    assert tap.config == settings(pbx) | defaults
    assert (tap.config["timezone"], tap.config["request_interval"]) == ("Australia/Melbourne", 60)


def test_api_url_is_normalized() -> None:
    forms = {
        "https://pbx.example.com": "https://pbx.example.com/njadmin/rest/RecordingAPI",
        "https://pbx.example.com:8443/": "https://pbx.example.com:8443/njadmin/rest/RecordingAPI",
        "HTTPS://pbx.example.com/x/": "https://pbx.example.com/x",
        "https://pbx.example.com/x/retrieveMetaDataByHour": "https://pbx.example.com/x",
        "https://pbx.example.com/x/retrieveMetaDataByHour/": "https://pbx.example.com/x",
    }
    for host in ("https://bücher.example", "http://localhost", "http://127.8.8.8", "http://[::1]"):
        # This is not the endpoint, but a longer name.
        forms[f"{host}/xretrieveMetaDataByHour"] = f"{host}/xretrieveMetaDataByHour"
    for text, expected in forms.items():
        assert build_api_url(text) == expected


def test_start_date_is_converted_to_the_pbx_hour(pbx: Simulator) -> None:
    first_hours = {
        "2021-09-14": 0,
        "2021-09-14T15:59:59": 15,
        "2021-09-14 15:00": 15,
        "2021-09-14T05:30:00Z": 15,
        "2021-09-14T00:00:00-04:00": 14,
        "2021-09-14T15:30:00.123456": 15,
    }
    for start in first_hours:
        run_tap(pbx, start_date=start, max_hours_per_run=1)
    assert requested_hours(pbx) == [("2021-09-14", hour) for hour in first_hours.values()]


def test_unknown_setting_causes_a_warning_with_the_nearest_name(
    pbx: Simulator, tmp_path: Path
) -> None:
    done = run_with(pbx, tmp_path, startdate="2020-01-01", API_KEY="x", color=5, lookback="")
    assert done.code == 0
    names = ["startdate", "API_KEY", "color", "lookback"]
    hints = ["start_date", "api_key", "", "lookback_hours"]
    for warning, name, hint in zip(done.logged("WARNING"), names, hints, strict=True):
        assert warning.startswith(f"{name!r} is not a setting")
        assert warning.partition("did you mean ")[2].strip("'?") == hint


# --- Environment variables --------------------------------------------------------------------


def test_variables_are_converted_to_the_types_of_their_settings(pbx: Simulator) -> None:
    maps = '{"recordings": {"Username": null}}'
    env = variables(pbx, user_agent="7", settle_minutes="+5", stream_maps=maps)
    done = run_command("--config", "ENV", env=env)
    assert (done.code, len(done.records), done.logged("WARNING")) == (0, 4, [])
    assert "Username" not in done.records[0]


def test_bad_variable_is_a_one_line_error(pbx: Simulator) -> None:
    bad = [
        ("request_interval", "--5", "TAP_NOOJEE_REQUEST_INTERVAL is not a whole number"),
        ("request_interval", API_KEY, "TAP_NOOJEE_REQUEST_INTERVAL is not a whole number"),
        ("request_interval", "5" * 5000, "TAP_NOOJEE_REQUEST_INTERVAL is not a whole number"),
        ("request_interval", "-5", "-5 is less than the minimum of 0"),
        ("stream_maps", "{", "TAP_NOOJEE_STREAM_MAPS is not JSON"),
        ("stream_maps", '{"a":' * 20_000, "TAP_NOOJEE_STREAM_MAPS is not JSON"),
        ("stream_maps", "[]", "[] is not of type 'object'"),
        ("start_date", "20210914150000", "is not a date"),
        ("api_key", "", "is missing"),
    ]
    for name, text, problem in bad:
        env = variables(pbx) | {f"TAP_NOOJEE_{name.upper()}": text}
        done = run_command("--config", "ENV", env=env)
        assert re.match(rf"{name}\b", done.error_line), text[:20]
        assert problem in done.error_line, text[:20]
        assert API_KEY[:8] not in done.log, text[:20]
    assert requested_hours(pbx) == []


def test_empty_variables_count_as_unset(pbx: Simulator, tmp_path: Path) -> None:
    """An empty variable does not override a settings file."""
    empty = {f"TAP_NOOJEE_{name.upper()}": "" for name in OPTIONAL}
    done = run_command("--config", "ENV", env=empty | variables(pbx))
    assert (done.code, len(done.records), done.logged("WARNING")) == (0, 4, [])
    config = settings(pbx, end_date="2021-09-14T18:00", timezone="Australia/Sydney")
    (tmp_path / "config.json").write_text(json.dumps(config | {"max_hours_per_run": 1}))
    env = empty | {"TAP_NOOJEE_START_DATE": "2021-09-14T15:00"}
    env |= {"TAP_NOOJEE_END_DATE": "2021-09-14T17:00", "TAP_NOOJEE_REQUEST_INTERVAL": "0"}
    done = run_command("--config", tmp_path / "config.json", "--config", "ENV", env=env)
    assert requested_hours(pbx)[1:] == [("2021-09-14", 15)]
    assert done.states[-1]["bookmarks"]["recordings"]["timezone"] == "Australia/Sydney"


def test_only_unknown_variables_cause_a_warning(pbx: Simulator) -> None:
    """`TAP_NOOJEE__SELECT`, which Meltano sets, and the log level cause none."""
    extra = {
        "TAP_NOOJEE_STARTDATE": "",
        "TAP_NOOJEE__SELECT": "x",
        "TAP_NOOJEE_LOGLEVEL": "info",
    }
    done = run_command("--config", "ENV", env=variables(pbx) | extra)
    (warning,) = done.logged("WARNING")
    assert "'startdate'" in warning
    assert "'start_date'" in warning
