"""The tap's exceptions."""

from datetime import datetime


class Interrupted(Exception):  # noqa: N818 - not an error: the user asked for it
    """A signal interrupted the run."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class DateError(ValueError):
    """The text is not a usable date.

    The message is a predicate, such as "is not a date": the caller puts the name before it. It
    omits the value, which may contain the API key.
    """


class NoojeeError(Exception):
    """Base class of errors that the command logs without a traceback, one line per argument."""


class SettingsError(NoojeeError):
    """A setting is unusable."""


class StateError(NoojeeError):
    """The state is unreadable, from the future, or for another PBX or time zone."""


class CatalogError(NoojeeError):
    """The catalog or a stream map is unusable."""


class ZoneError(NoojeeError):
    """A date from the PBX contradicts the `timezone` setting."""


class FailedHoursError(NoojeeError):
    """Some hours failed in this run."""


class RequestError(NoojeeError):
    """A request failed. Only a TransientError is worth retrying."""

    retry_after = 0.0
    """Seconds that the server asks us to wait."""


class HourError(RequestError):
    """One hour failed: its response is unreadable, or the PBX failed on it. Others may be fine."""


class TransientError(RequestError):
    """A request failed, and retrying may help."""

    def __init__(self, reason: str, retry_after: float = 0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class TransientHourError(TransientError, HourError):
    """One hour failed, and retrying may help."""


class RateLimitError(TransientError):
    """The PBX rejected a request because of its rate limit."""


class PossibleRateLimitError(TransientError):
    """The PBX rejected a request, perhaps due to its rate limit, whose error is undocumented."""


class TooEarlyError(Exception):
    """The hour is not due yet by the PBX's clock. `date` is the response's `Date` header."""

    def __init__(self, date: datetime) -> None:
        super().__init__(date)
        self.date = date
