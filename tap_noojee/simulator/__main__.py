"""Run the simulator with `python -m tap_noojee.simulator`."""

from __future__ import annotations

from tap_noojee.simulator.cli import main

main()
