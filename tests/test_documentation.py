"""The pages of docs/: their links, and their recipes, run from the pages' own text."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from conftest import run_tap, truth
from pages import ROOT, block
from processes import arguments, finished, last_line

from tap_noojee.simulator import Leg, Simulator

if TYPE_CHECKING:
    from pathlib import Path

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
HOUR: dict[str, Any] = {"start_date": "2021-09-14T15:00", "end_date": "2021-09-14T16:00"}


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are made from their words."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Each link to a file of the repository leads to one, and to a heading that it has."""
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def hashing() -> Any:
    """The page's stream maps that hash numbers."""
    return yaml.safe_load(block("docs/privacy.md", "stream_maps", "yaml"))["config"]["stream_maps"]


def test_phone_numbers_are_hashed_as_the_page_says(pbx: Simulator) -> None:
    """The page's stream maps hash each number with the salt, and survive a leg without one."""
    (leg,) = truth(pbx, start="2021-09-14T15:03", end="2021-09-14T15:03:40")
    nobody: Any = None
    pbx.legs = [leg, Leg(leg.start, leg.callend, "2", source=nobody, did="", destination=nobody)]
    salt = "sixteen are many"
    run = run_tap(pbx, **HOUR, stream_maps=hashing(), stream_map_config={"salt": salt})
    assert run.error is None
    numbers = [(r["Source"], r["Destination"], r["DID"]) for r in run.records]
    hashed = [sha256(f"{salt}{n}".encode()).hexdigest() for n in ("500", "123", "7601")]
    assert numbers == [tuple(hashed), (None, None, "")]


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"salt": "fifteen are few"}, "IndexError"),
        ({"salt": ""}, "IndexError"),
        ({}, "KeyError"),
    ],
)
def test_a_salt_that_protects_nobody_ends_the_run(
    pbx: Simulator, tmp_path: Path, config: dict[str, str], error: str
) -> None:
    """With a short, empty or no salt, the page's maps fail in one line, and write nothing."""
    maps = hashing()
    run, done = finished(
        arguments(tmp_path, pbx, **HOUR, stream_maps=maps, stream_map_config=config)
    )
    assert (done.returncode, run.records) == (1, [])
    expression = maps["recordings"]["Source"]  # the first of the page's
    assert last_line(done.log) == f'stream_maps: recordings: "{expression}" fails: {error}'
    assert "Traceback" not in done.log


def test_the_page_quotes_the_line_of_a_map_that_fails(pbx: Simulator) -> None:
    """The map of which the page warns fails on a leg without a number, as it says."""
    text = (ROOT / "docs" / "privacy.md").read_text("utf-8")
    expression = "sha256(config['salt'] + Source)"
    assert f'stream_maps: recordings: "{expression}" fails: TypeError' in text
    nobody: Any = None
    (leg,) = truth(pbx, "2021-09-14T15:03", "2021-09-14T15:03:40")
    pbx.legs = [Leg(leg.start, leg.callend, "2", source=nobody)]
    run = run_tap(
        pbx,
        **HOUR,
        stream_maps={"recordings": {"Source": expression}},
        stream_map_config={"salt": "pepper"},
    )
    assert isinstance(run.error, TypeError)


def test_two_pbxs_in_one_table_have_keys_of_their_own(pbx: Simulator) -> None:
    """The recipe's stream map adds the PBX's name to each record, and to the key."""
    maps = yaml.safe_load(block("docs/recipes.md", "__key_properties__", "yaml"))["config"][
        "stream_maps"
    ]
    run = run_tap(pbx, **HOUR, stream_maps=maps)
    assert run.error is None
    assert run.messages[0]["key_properties"] == ["pbx", "CallRecordId", "Leg"]
    assert {record["pbx"] for record in run.records} == {"sydney"}


def test_the_faker_settings_work_with_their_extra(pbx: Simulator) -> None:
    """With the extra, a stream map may invent names, the same ones at each run."""
    settings: dict[str, Any] = {
        "stream_maps": {"recordings": {"Username": "fake.user_name()"}},
        "faker_config": {"seed": 7, "locale": "en_AU"},
    }
    runs = [run_tap(pbx, **HOUR, **settings) for _ in range(2)]
    names = [[record["Username"] for record in run.records] for run in runs]
    assert names[0] == names[1]
    assert "NoojeeAdmin" not in names[0]


def test_a_stretch_that_is_added_to_what_is_owed_is_read_again(pbx: Simulator) -> None:
    """An interval that is added to `owed` by hand is read by the next run, and then not owed."""
    day: dict[str, Any] = {"start_date": "2021-09-14", "end_date": "2021-09-15"}
    state = run_tap(pbx, **day).states[-1]
    state["bookmarks"]["recordings"]["owed"].append(
        {"start": "2021-09-14T05:00:00Z", "end": "2021-09-14T06:30:00Z"}
    )
    pbx.requests.clear()
    run = run_tap(pbx, **day, state=state)
    assert [request.hour for request in pbx.requests] == [15, 16]
    assert run.states[-1]["bookmarks"]["recordings"]["owed"] == []
