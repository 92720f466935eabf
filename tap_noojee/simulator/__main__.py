"""Run the simulator with `python -m tap_noojee.simulator`."""

from tap_noojee.simulator.cli import main

main()
