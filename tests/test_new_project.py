"""The README's commands for a new project, and the recipes of the other pages."""

import dataclasses
import json
import os
import re
import signal
import subprocess
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
import yaml
from conftest import expected_legs, requested_hours, run_tap
from environments import commit, run
from pages import block, blocks
from postgres import Postgres
from processes import wait_until
from projects import FirstSteps, Project

from tap_noojee.simulator import Failure, Leg, Simulator

pytestmark = pytest.mark.slow

pytest_plugins = ["projects"]

RECIPES, OPERATION = "docs/recipes.md", "docs/operation.md"
PERIOD = ("2021-09-14T15:00:00", "2021-09-14T16:00:00")
RUN_PIPELINE = ("run", "tap-noojee", "target-postgres")


def stored_ends(server: Postgres, table: str = "tap_noojee.recordings") -> list[datetime]:
    """Return the `callend` of each row in UTC, in order."""
    rows = server.query(f"SELECT callend FROM {table} ORDER BY callend")  # noqa: S608
    return [callend.replace(tzinfo=UTC) for (callend,) in rows]


def expected_ends(pbx: Simulator, start: str = PERIOD[0], end: str = PERIOD[1]) -> list[datetime]:
    return [leg.callend for leg in expected_legs(pbx, start, end)]


@pytest.fixture
def uv_variables(new_project: Project, tmp_path: Path) -> dict[str, str]:
    """Variables for `uv tool install`, which then installs into a folder on PATH."""
    folders = (tmp_path / "bin", new_project.root.parent / "tap-noojee" / ".uv" / "bin")
    return {
        "PATH": os.pathsep.join(
            [*map(str, (*folders, new_project.bin)), new_project.environment["PATH"]]
        ),
        "UV_TOOL_DIR": str(tmp_path / "tools"),
        "UV_TOOL_BIN_DIR": str(folders[0]),
    }


def test_readme_commands_make_one_successful_request(first_steps: FirstSteps) -> None:
    """The simulator returns 403 for any key except the README's."""
    assert first_steps.statuses == [200], first_steps.printed
    content = (first_steps.project.root / "meltano.yml").read_text("utf-8")
    assert str(first_steps.project.root.parent) not in content  # no absolute path


def test_nightly_lookback_and_edited_state_read_hours_again(
    new_project: Project, pbx: Simulator, server: Postgres
) -> None:
    """Run the README's pipeline, the nightly lookback, and the recipe that edits the state."""
    new_project.configure_tap(pbx, "2021-09-14", PERIOD[1])
    new_project.use_postgres(server)
    text = block("README.md", "meltano add target-postgres", "sh")
    new_project.shell(text[text.index("meltano run") :])
    day = expected_ends(pbx, "2021-09-14")
    assert stored_ends(server) == day

    pbx.requests.clear()
    crontab = block(OPERATION, "LOOKBACK", "crontab")
    (nightly,) = re.findall(r"^10 0 \* \* \* cd /srv/calls && (.*)$", crontab, re.MULTILINE)
    new_project.shell(nightly)
    assert requested_hours(pbx) == [("2021-09-14", hour) for hour in range(16)]

    before, after = (json.loads(part)["hours_read"] for part in blocks(RECIPES, "json"))
    get_state, set_state = (block(RECIPES, f"state {verb}", "sh") for verb in ("get", "set"))
    new_project.shell(get_state)
    path = new_project.root / "state.json"
    state = json.loads(path.read_text("utf-8"))
    bookmark = state["singer_state"]["bookmarks"]["recordings"]
    assert bookmark["hours_read"] == before
    bookmark["hours_read"] = after
    path.write_text(json.dumps(state), "utf-8")
    new_project.shell(set_state, answer="y\n")
    pbx.requests.clear()
    new_project.meltano(*RUN_PIPELINE)
    assert requested_hours(pbx) == [("2021-09-14", 12), ("2021-09-14", 13)]
    assert stored_ends(server) == day


def test_rehearsal_does_not_affect_the_real_load(
    new_project: Project, pbx: Simulator, server: Postgres, uv_variables: dict[str, str]
) -> None:
    new_project.use_postgres(server)
    new_project.use_postgres(server, "rehearsal")
    new_project.environment |= {
        "TAP_NOOJEE_START_DATE": PERIOD[0],
        "TAP_NOOJEE_END_DATE": PERIOD[1],
    }
    new_project.shell(block(OPERATION, "environment add rehearsal", "sh"), env=uv_variables)
    assert stored_ends(server, "rehearsal.recordings") == expected_ends(pbx)
    new_project.configure_tap(
        pbx, *PERIOD, TAP_NOOJEE_API_URL=pbx.url.replace("127.0.0.1", "localhost")
    )
    new_project.meltano(*RUN_PIPELINE)
    assert stored_ends(server) == expected_ends(pbx)

    # The state is from another PBX, as after a rehearsal in the same environment.
    new_project.configure_tap(pbx, *PERIOD)
    printed = new_project.meltano(*RUN_PIPELINE, status=1)
    assert "state: written with pbx 'localhost', but this run uses '127.0.0.1'" in printed
    assert "Traceback" not in printed
    new_project.shell(block(OPERATION, "state clear", "sh"), answer="y\n")
    server.execute(block(OPERATION, "DROP TABLE", "sql"))
    new_project.meltano(*RUN_PIPELINE)
    assert stored_ends(server) == expected_ends(pbx)


def test_scheduled_job_uses_the_state_of_meltano_run(
    new_project: Project, pbx: Simulator, server: Postgres
) -> None:
    new_project.configure_tap(pbx, *PERIOD)
    new_project.use_postgres(server)
    new_project.shell(block(RECIPES, "schedule add", "sh"))
    new_project.meltano("schedule", "run", "hourly")
    assert new_project.hours_read() == [("2021-09-14T15:00", "2021-09-14T16:00")]
    assert stored_ends(server) == expected_ends(pbx)

    # Without a job, the schedule uses another state, so it reads the hour again.
    plugins = ("--extractor", "tap-noojee", "--loader", "target-postgres")
    new_project.meltano("schedule", "add", "second", *plugins, "--interval", "10 * * * *")
    new_project.meltano("schedule", "run", "second")
    assert requested_hours(pbx) == [("2021-09-14", 15)] * 2


def test_pbxs_can_have_separate_tables_or_share_one(
    new_project: Project, server: Postgres
) -> None:
    end = datetime(2021, 9, 14, 5, 30, tzinfo=UTC)
    query = 'SELECT pbx, "CallRecordId", "Leg", "Source" FROM noojee.recordings ORDER BY 1, 2, 3'
    loader = "target-postgres"
    run_both = ("run", "tap-noojee--sydney", loader, "tap-noojee--perth", loader)
    for schema in ("noojee", "noojee_sydney", "noojee_perth"):
        new_project.use_postgres(server, schema)

    def legs(source: str) -> list[Leg]:
        """Return two legs with the same ids on each PBX."""
        return [Leg(end, end, "1", leg, source=source) for leg in (1, 2)]

    with (
        Simulator(timezone="Australia/Sydney", api_key="sydney-key", legs=legs("200")) as sydney,
        Simulator(timezone="Australia/Perth", api_key="perth-key", legs=legs("800")) as perth,
    ):
        new_project.configure_tap(sydney, "2021-09-14T05:00:00Z", "2021-09-14T06:00:00Z")
        for name, pbx in (("SYDNEY", sydney), ("PERTH", perth)):
            new_project.environment[f"TAP_NOOJEE__{name}_API_URL"] = pbx.url
            new_project.environment[f"TAP_NOOJEE__{name}_API_KEY"] = pbx.api_key
        new_project.meltano(*run_both)
        assert requested_hours(sydney) == [("2021-09-14", 15)]
        assert requested_hours(perth) == [("2021-09-14", 13)]
        for schema in ("noojee_sydney", "noojee_perth"):
            assert stored_ends(server, f"{schema}.recordings") == [end, end]

        server.execute("ALTER SCHEMA noojee_sydney RENAME TO noojee")
        server.execute(block(RECIPES, "ALTER TABLE", "sql"))
        for name in ("sydney", "perth"):
            recipe = block(RECIPES, "__key_properties__", "yaml").replace("sydney", name)
            new_project.change("extractors", f"tap-noojee--{name}", **yaml.safe_load(recipe))
        sydney.legs = legs("201")
        new_project.environment["TAP_NOOJEE_LOOKBACK_HOURS"] = "1"
        new_project.meltano(*run_both)
        assert len(sydney.requests) == len(perth.requests) == 2
    assert server.query(query) == [
        (name, "1", leg, source)
        for name, source in (("perth", "800"), ("sydney", "201"))
        for leg in (1, 2)
    ]


def test_job_loads_one_pbx_into_two_targets(new_project: Project, server: Postgres) -> None:
    new_project.use_postgres(server)
    with Simulator(interval=5) as pbx:
        new_project.configure_tap(pbx, *PERIOD, TAP_NOOJEE_REQUEST_INTERVAL="5")
        new_project.shell(block(RECIPES, "meltano job add both", "sh"))
        statuses = [request.status for request in pbx.requests]
        assert stored_ends(server) == expected_ends(pbx)
    # On a slow machine, the second tap starts so late that nothing is rejected.
    assert statuses in ([200, 429, 200], [200, 200])
    assert len(new_project.records) == 4


def test_mapper_hashes_only_with_a_long_salt(
    new_project: Project, pbx: Simulator, tmp_path: Path
) -> None:
    install, pipeline = block(RECIPES, "meltano install mapper", "sh").splitlines()
    new_project.shell(install)
    with (new_project.root / ".env").open("a", encoding="utf-8") as file:
        file.write(block(RECIPES, "MELTANO_MAP_TRANSFORMER", "sh"))
    new_project.configure_tap(pbx, *PERIOD)
    new_project.shell(pipeline.replace("postgres", "jsonl"))
    hashed = sha256(b"a-long-random-text500").hexdigest()
    assert [record["Source"] for record in new_project.records] == [hashed] * 4

    # Run the mapper directly with too short a salt, to see its exit code and output.
    (mapper,) = new_project.content["plugins"]["mappers"]
    config = mapper["mappings"][0]["config"] | {"stream_map_config": {"salt": "15-character-xx"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    program = (
        new_project.root / ".meltano/mappers" / mapper["name"] / "venv/bin" / mapper["executable"]
    )
    done = subprocess.run(
        [program, "--config", tmp_path / "config.json"],
        input=run_tap(pbx, start_date=PERIOD[0], end_date=PERIOD[1]).output,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "RECORD" not in done.stdout


IMPATIENT_TARGET = """#!{python}
from target_postgres.target import TargetPostgres
TargetPostgres._MAX_RECORD_AGE_IN_MINUTES = 0
TargetPostgres.cli()
"""
"""A target-postgres that emits STATE immediately, instead of every five minutes."""


def test_interrupted_run_keeps_the_last_state_from_the_target(
    new_project: Project, server: Postgres, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    python = (
        new_project.root / ".meltano" / "loaders" / "target-postgres" / "venv" / "bin" / "python"
    )
    target.write_text(IMPATIENT_TARGET.format(python=python))
    target.chmod(0o755)
    new_project.change("loaders", "target-postgres", executable=str(target))
    new_project.use_postgres(server)
    ends = [datetime(2021, 9, 14, hour, 30, tzinfo=UTC) for hour in range(2, 6)]
    legs = [Leg(end, end, str(end.hour)) for end in ends]
    with Simulator(legs=legs) as pbx:
        new_project.configure_tap(pbx, "2021-09-14T12:00:00", PERIOD[1])
        pbx.failures.append(Failure("stall", ("2021-09-14", 15)))
        with new_project.start(*RUN_PIPELINE) as process:
            wait_until(lambda: new_project.hours_read() or process.poll() is not None, seconds=60)
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            process.communicate()
        assert process.returncode != 0
        ((start, end),) = new_project.hours_read()
        assert start == "2021-09-14T12:00"
        pbx.failures.clear()
        pbx.requests.clear()
        new_project.meltano(*RUN_PIPELINE)
        assert requested_hours(pbx)[0] == ("2021-09-14", datetime.fromisoformat(end).hour)
        assert stored_ends(server) == ends


def test_upgrade_installs_the_new_version(new_project: Project, tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    clone = new_project.root.parent / "tap-noojee"
    run("git", "clone", "-q", clone, origin)
    text = (origin / "pyproject.toml").read_text("utf-8")
    (origin / "pyproject.toml").write_text(re.sub(r"(?m)^version = .*", 'version = "99"', text))
    commit(origin, "Raise the version")
    outdated = tmp_path / "clone"
    run("git", "clone", "-q", origin, outdated)
    run("git", "reset", "-q", "--hard", "HEAD~1", cwd=outdated)
    assert new_project.plugin("extractors", "tap-noojee")["pip_url"] == "../tap-noojee"
    new_project.change("extractors", "tap-noojee", pip_url=str(outdated))
    new_project.shell(block(RECIPES, "--clean", "sh").replace("../tap-noojee", str(outdated)))
    installed = (
        new_project.root / ".meltano" / "extractors" / "tap-noojee" / "venv" / "bin" / "tap-noojee"
    )
    assert "v99" in run(installed, "--version")


def test_readme_commands_work_without_meltano(
    new_project: Project, pbx: Simulator, uv_variables: dict[str, str], tmp_path: Path
) -> None:
    """A failed run keeps its progress, and a run that fails immediately keeps the old state."""
    folder = new_project.root.parent / "plain"
    folder.mkdir()
    environment = new_project.environment | uv_variables
    plain = dataclasses.replace(
        new_project, root=folder, environment=environment, bin=tmp_path / "bin"
    )
    config = json.loads(block("README.md", '"api_key"', "json")) | {"api_url": pbx.url}
    config |= {"start_date": PERIOD[0], "end_date": "2021-09-14T17:00", "request_interval": 0}
    pbx.api_key = config["api_key"]
    pbx.failures.append(Failure("status", ("2021-09-14", 16), status=401))
    (folder / "target.json").write_text(block("README.md", "destination_path", "json"))
    # `shell` sets -e, but the README runs this script with plain bash.
    script = "set +e\n" + block("README.md", "pipefail", "bash")

    plain.shell(block("README.md", "uv tool install", "sh"))
    (folder / "config.json").write_text(json.dumps(config))
    plain.shell(script, status=1)
    state = json.loads((folder / "state.json").read_text())
    (read,) = state["bookmarks"]["recordings"]["hours_read"]
    assert read == {"from": "2021-09-14T15:00", "to": "2021-09-14T16:00"}
    # A state that the user has edited, here only its layout.
    edited = json.dumps(state, indent=2)
    (folder / "state.json").write_text(edited)
    (folder / "config.json").write_text("{}")
    plain.shell(script, status=1)
    assert (folder / "state.json").read_text() == edited
    (folder / "config.json").write_text(json.dumps(config))
    pbx.requests.clear()
    plain.shell(script)
    assert requested_hours(pbx) == [("2021-09-14", 16)]
    lines = (folder / "calls" / "recordings.jsonl").read_text("utf-8").splitlines()
    written = [json.loads(line)["callend"] for line in lines]
    assert written == [end.isoformat() for end in expected_ends(pbx, end="2021-09-14T17:00")]

    # Run the recipes for an upgrade and for a SOCKS proxy.
    plain.shell(block(RECIPES, "--reinstall", "sh"))
    plain.shell(block(RECIPES, "PySocks", "sh"))
    proxy = {"HTTPS_PROXY": "socks5h://127.0.0.1:9", "NO_PROXY": "", "no_proxy": ""}
    (folder / "config.json").write_text(json.dumps(config | {"api_url": "https://pbx.invalid"}))
    printed = plain.shell("tap-noojee --config config.json --test", status=1, env=proxy)
    assert "Connection refused" in printed
