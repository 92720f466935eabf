"""A simulated PBX. It shares no code with the tap, so neither can hide the other's bugs."""

from tap_noojee.simulator.calls import Leg, invent_legs
from tap_noojee.simulator.failures import Failure, Request
from tap_noojee.simulator.server import API_KEY, USER_KEY, Simulator

__all__ = ["API_KEY", "USER_KEY", "Failure", "Leg", "Request", "Simulator", "invent_legs"]
