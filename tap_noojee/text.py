"""Counts, durations and the progress of a run, in words for the log."""

import pendulum

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def pluralize(count: int, noun: str) -> str:
    """Format a count with its noun, such as `8,760 hours`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def humanize(seconds: float) -> str:
    """Format a duration in its largest units, such as `6 days 2 hours`."""
    unit = 1 if seconds < _MINUTE else _MINUTE if seconds < _DAY else _HOUR
    rounded = round(seconds / unit) * unit
    return pendulum.duration(days=rounded // _DAY, seconds=rounded % _DAY).in_words(locale="en")


def describe_plan(unread: int, reread: int, remaining: float, interval: int) -> str:
    """Describe the hours to read, at `interval` seconds each.

    `remaining` is the number of hours that this run may request.
    """
    if not unread + reread:
        return "Nothing left to read"
    parts = [f"{pluralize(unread, 'hour')} to read"] if unread else []
    parts += [f"{pluralize(reread, 'hour')} to read again"] if reread else []
    if unread + reread > remaining:
        parts.append(f"{int(remaining):,} of them in this run")
    text = ", ".join(parts)
    return f"{text}; about {humanize((unread + reread) * interval)} in all" if interval else text


def describe_progress(left: int, remaining: float, pace: float, now: pendulum.DateTime) -> str:
    """Describe the hours left, and when this run will finish.

    `pace` is the number of seconds that it takes to read one hour.
    """
    in_run = int(min(left, remaining))
    if not in_run:
        return _left_over(left) if left else "nothing left to read"
    text = f"{pluralize(left, 'hour')} left"
    text += f", {in_run:,} of them in this run" if in_run < left else ""
    if in_run * pace < _HOUR:
        return f"{text}, {_estimate(in_run * pace)}"
    return f"{text}, done at about {now.add(seconds=in_run * pace):%Y-%m-%d %H:%M %Z}"


def describe_result(legs: int, hours: int, requests: int, left: int) -> str:
    """Sum up a run on one line, such as `263 legs in 24 hours, 24 requests`."""
    counts = f"{pluralize(legs, 'leg')} in {pluralize(hours, 'hour')}"
    text = f"{counts}, {pluralize(requests, 'request')}"
    return f"{text}; {_left_over(left)}" if left else text


def _left_over(left: int) -> str:
    return f"{pluralize(left, 'hour')} left for later runs"


def _estimate(seconds: float) -> str:
    return f"about {humanize(seconds)}" if seconds >= 1 else "less than a second"
