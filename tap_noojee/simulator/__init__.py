"""A simulated PBX, to try the tap without a real one and to test it against.

It shares no code with the tap: hours and dates are worked out here a second time, so that a
mistake in the tap cannot hide behind the same mistake in its tests.
"""

from __future__ import annotations

from tap_noojee.simulator.calls import Leg, legs
from tap_noojee.simulator.failures import Failure, Request
from tap_noojee.simulator.server import API_KEY, Simulator

__all__ = ["API_KEY", "Failure", "Leg", "Request", "Simulator", "legs"]
