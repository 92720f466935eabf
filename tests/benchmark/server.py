"""A PBX that prepares its responses in advance, so that serving them takes almost no time."""

import json
import logging
import threading
from datetime import datetime, timedelta
from pathlib import Path

from werkzeug import Request, Response
from werkzeug.serving import make_server

START = datetime.fromisoformat("2021-06-07T00:00+10:00")  # AEST until October
HOUR = timedelta(hours=1)
SAMPLE = json.loads((Path(__file__).parents[1] / "documented-response.json").read_text())[0]


def start(hours: int, legs: int) -> str:
    """Serve `hours` hours with `legs` legs each, by POST and GET, and return the API's URL."""
    responses = {}
    for hour in (START + number * HOUR for number in range(hours)):
        responses[f"{hour:%Y/%m/%d}", str(hour.hour)] = _build_response(hour, legs)

    @Request.application
    def pbx(request: Request) -> Response:
        body = responses.get((request.args["date"], request.args["hour"]), b"[]")
        return Response(body, content_type="application/json")

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, pbx, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.port}/njadmin/rest/RecordingAPI"


def _build_response(hour: datetime, count: int) -> bytes:
    """Return a body with legs spread over an hour, three to a call, newest first."""
    legs = []
    for number in range(count):
        call, leg = divmod(number, 3)
        end = hour + number / count * HOUR
        begin = end - timedelta(seconds=int(SAMPLE["Duration"]))
        dates = {"Start": f"{begin:%a %b %d %T AEST %Y}", "callend": f"{end:%a %b %d %T AEST %Y}"}
        ids = {"CallRecordId": f"{hour:%m%d%H}{call:05}", "Leg": str(leg + 1)}
        legs.append(SAMPLE | dates | ids | {"UniqueId": f"{begin.timestamp():.0f}.{call}"})
    return json.dumps(legs[::-1]).encode()
