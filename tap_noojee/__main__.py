"""Run the tap with `python -m tap_noojee`."""

from tap_noojee.tap import main

main()
