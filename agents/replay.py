"""Dead letters whose cause has been mended go back by themselves. An application of its own: `faust -A agents.replay worker`.

Effect:     every K2_REPLAY_EVERY_MS the open letters of K2_REPLAY_REASONS are judged again; those that would be rows now are
            published to their topics at K2_REPLAY_RATE, and market_data.replays says so
Guarantee:  each attempt is published once, whatever is killed; a letter that would die again stays where it is, so nothing goes round
"""

from typing import Any

import structlog

from agents import settings as of_workers
from k2stream.app import create_app
from k2stream.deadletter.run import replay_mended
from k2stream.errors import K2Error
from k2stream.web.pages import add_pages

log = structlog.get_logger(__name__)

settings = of_workers.model_copy(update={"app_id": f"{of_workers.app_id}-replay", "web_port": of_workers.replay_web_port})
app = create_app(settings)
app.producer_only = True  # which letters are open their table says: no topic is read
done: dict[str, Any] = {"replays": 0, "published": 0, "outcomes": {}}


async def send_mended_back() -> None:
    """One round; what goes wrong is shown until a round goes right."""
    if not app.is_booted:
        return
    try:
        found = await replay_mended(settings, app.sink)
    except K2Error as exc:
        app.health.red("replay", str(exc))
        return
    app.health.green("replay")
    if found is not None:
        done["replays"] += 1
        done["published"] += found.published
        done["outcomes"] = found.outcomes
        log.info("replay.done", published=found.published, outcomes=found.outcomes, waiting=found.waiting)


app.timer(interval=settings.replay_every_ms / 1000, name="replay_mended")(send_mended_back)
app.on_report("replay", lambda: done)
add_pages(app)
