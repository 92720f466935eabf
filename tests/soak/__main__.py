"""A year of runs of the tap in real Meltano, into real PostgreSQL, with kills and failures.

    uv run --extra simulator --group test python tests/soak

Meltano runs the tap over and over, while `end_date` moves on as the present would. At random
points the tap, the target, Meltano or the database is killed, and the PBX fails. After each run
STATE must claim nothing that is not in the table; in the end the table must be, row by row, what
the PBX has.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import pytest

TEST = Path(__file__).parent.parent / "test_soak.py"


def main() -> None:
    """Run the test with another plan, so that it finds Meltano installed as all tests do."""
    parser = argparse.ArgumentParser(
        prog="tests/soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--hours", type=int, default=8760, help="of history (%(default)s: a year)")
    parser.add_argument("--hours-per-run", type=int, default=150, help="on average (%(default)s)")
    parser.add_argument("--volume", type=float, default=1, help="of calls (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of all that is drawn (%(default)s)")
    os.environ["SOAK_PLAN"] = json.dumps(vars(parser.parse_args()))
    sys.exit(pytest.main([str(TEST), "--capture=no", "-m", "slow"]))


if __name__ == "__main__":
    main()
