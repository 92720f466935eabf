"""The tap's exceptions. This module imports nothing of the tap."""

from __future__ import annotations


class Stopped(Exception):  # noqa: N818 - not an error, but the user's wish
    """The run was asked to end."""


class DateError(ValueError):
    """Not a date of the PBX, or not a time of its zone; says what is wrong, without the text."""


class NoojeeError(Exception):
    """Ends the run for a reason that its user can act on; logged in one line, without a traceback.

    A line for each argument.
    """


class SettingsError(NoojeeError):
    """Settings that cannot be used; an argument for each."""


class StateError(NoojeeError):
    """A STATE that cannot be read."""


class OutputError(NoojeeError):
    """Messages cannot be written to the target."""


class RequestError(NoojeeError):
    """A request that brought no legs, and that asking again will not mend."""


class RecordError(RequestError):
    """A record that cannot be read; names its place, its field and its value."""


class TransientError(RequestError):
    """A request that failed in a way that may pass.

    Args:
        reason: What went wrong, for the log.
        retry_after: How long the server asks to wait, in seconds.
    """

    def __init__(self, reason: str, retry_after: float = 0) -> None:
        """Keep how long to wait beside the reason."""
        super().__init__(reason)
        self.retry_after = retry_after


class RateLimitError(TransientError):
    """The PBX rejected a request as one too many."""


class RejectedError(TransientError):
    """The PBX rejected a request for a reason that may last, or that may be its rate limit.

    How the PBX words its limit is not documented, so a rejection is worth one more request.
    """


class HourNotOverError(Exception):
    """By the PBX's own clock, the hour that was requested is not over.

    Args:
        seconds_behind: How far the PBX's clock is behind this machine's.
    """

    def __init__(self, seconds_behind: float) -> None:
        """Keep the difference of the clocks."""
        super().__init__(seconds_behind)
        self.seconds_behind = seconds_behind
