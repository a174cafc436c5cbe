"""Where a chaos run happens: names of its own on the user's own services, gone when it is over."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from k2stream.chaos.trades import TradeMaker
from k2stream.clock import SystemClock
from k2stream.home import Home
from k2stream.lake.drop import drop_tables
from k2stream.playback import prepare_topics
from k2stream.settings import Settings
from k2stream.topics import TopicName
from k2stream.transport.open import open_sink

ASSET_CLASS = "crypto"
TABLES = ("trades", "gaps", "dead_letters", "quality")


@dataclass(frozen=True, slots=True)
class Ground:
    """Throwaway names, and the settings that lead there."""

    run_id: str
    settings: Settings
    """Straight to the services, for whoever publishes and checks."""
    topic: str
    exchange: str

    @property
    def home(self) -> Path:
        return self.settings.home

    def own_names(self) -> dict[str, str]:
        """Variables by which a worker comes here and nowhere else."""
        own = self.settings
        redis = {"K2_REDIS_URL": own.redis_url} if own.redis_url else {}
        return {
            **redis,
            "K2_APP_ID": own.app_id,
            "K2_NAMESPACE": own.namespace,
            "K2_TOPICS": own.topics,
            "K2_PARTITIONS": str(own.partitions),
            "K2_SESSION_TIMEOUT_MS": str(own.session_timeout_ms),
            "K2_WINDOW_MS": str(own.window_ms),
            "K2_LOG_FORMAT": "json",
            "K2_WEB_HOST": "127.0.0.1",
        }


def stake_out(settings: Settings, overrides: Mapping[str, object]) -> Ground:
    """New names under the user's settings; nothing is made on a service yet."""
    run_id = uuid4().hex[:8]
    exchange = f"chaos{run_id}"
    topic = str(TopicName(ASSET_CLASS, "trades", exchange))
    Home.open(settings.home)
    home = settings.home_path("chaos", run_id)
    home.parent.mkdir(mode=0o700, exist_ok=True)
    own = {"home": home, "namespace": f"chaos_{run_id}", "app_id": f"{settings.app_id}-chaos-{run_id}", "topics": topic}
    Home.open(home)
    return Ground(run_id, settings.model_copy(update={**own, **overrides}), topic, exchange.upper())


def prepare(ground: Ground, *, seed: int) -> TradeMaker:
    """Make the topic and register the contract; what will be published there."""
    settings = ground.settings
    schema_id = prepare_topics(settings, [ground.topic])[ground.topic]
    return TradeMaker(
        ground.exchange, prefix=f"chaos-{ground.run_id}", partitions=settings.partitions, schema_id=schema_id, seed=seed, now_us=SystemClock().now_us()
    )



def clear(ground: Ground) -> None:
    """Take away tables and topics. Letters stay in their topic, which is everybody's. Raises K2Error; what is left is harmless."""
    drop_tables(ground.settings, TABLES)
    asyncio.run(_delete_topics(ground))


async def _delete_topics(ground: Ground) -> None:
    """The market topic, and what Faust made under this run's own app id."""
    sink = open_sink(ground.settings)
    try:
        own = [topic for topic in await sink.topics() if topic == ground.topic or topic.startswith(f"{ground.settings.app_id}-")]
        for topic in own:
            await sink.delete_topic(topic)
    finally:
        await sink.close()
