"""Run the tap with `python -m tap_noojee`."""

from __future__ import annotations

from tap_noojee.tap import main

main()
