"""Real targets: their definitions in docs/targets.md, and pipes from the tap into them."""

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from environments import run
from pages import ROOT
from postgres import Postgres
from processes import command, environment

from tap_noojee.simulator import Simulator


def loader(heading: str) -> dict[str, Any]:
    """Return the plugin definition under a heading of docs/targets.md."""
    text = (ROOT / "docs" / "targets.md").read_text("utf-8")
    (found,) = re.findall(
        rf"^## {re.escape(heading)}\n[^#]*?```yaml\n(.*?)```", text, re.MULTILINE | re.DOTALL
    )
    (definition,) = yaml.safe_load(found)
    return dict(definition)


@contextmanager
def start(
    tmp_path: Path,
    target: Sequence[str | Path],
    config: dict[str, Any],
    pbx: Simulator,
    *,
    state: dict[str, Any] | None = None,
    **settings: Any,
) -> Iterator[tuple[subprocess.Popen[bytes], subprocess.Popen[str]]]:
    """Start `tap | target` in a folder, with the logs of both in the file `log`."""
    path = tmp_path / "target.json"
    path.write_text(json.dumps(config))
    with (
        (tmp_path / "log").open("w") as log,  # a pipe could fill up
        subprocess.Popen(
            command(tmp_path, pbx, state=state, **settings),
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment(),
        ) as tap,
        subprocess.Popen(
            [*target, "--config", path],
            stdin=tap.stdout,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=tmp_path,
            env=environment(),
        ) as process,
    ):
        assert tap.stdout is not None
        tap.stdout.close()
        yield tap, process


def pipe(
    tmp_path: Path, target: Path, config: dict[str, Any], pbx: Simulator, **more: Any
) -> dict[str, Any]:
    """Run `tap | target`, check that both succeed, and return the target's last state."""
    with start(tmp_path, [target], config, pbx, **more) as (tap, process):
        states, _ = process.communicate()
    assert (tap.returncode, process.returncode) == (0, 0), (tmp_path / "log").read_text()
    return dict(json.loads(states.splitlines()[-1]))


QUERY_DUCKDB = """
import duckdb, json, sys
connection = duckdb.connect(sys.argv[1])
for statement in sys.argv[2:-1]:
    connection.execute(statement)
found = connection.execute(f"SELECT to_json(r) FROM ({sys.argv[-1]}) r").fetchall()
print(json.dumps([json.loads(row) for (row,) in found]))
"""


def query_duckdb(target: Path, path: Path, *sql: str) -> list[dict[str, Any]]:
    """Run statements on a DuckDB file, and return the last one's rows, with times as text."""
    return list(json.loads(run(target.with_name("python"), "-c", QUERY_DUCKDB, path, *sql)))


def query_postgres(server: Postgres, *sql: str) -> list[dict[str, Any]]:
    """Run statements on a server, and return the last one's rows, with times as text."""
    *statements, query = sql
    for statement in statements:
        server.execute(statement)
    return [row for (row,) in server.query(f"SELECT row_to_json(r) FROM ({query}) r")]  # noqa: S608 - the tests' own SQL
