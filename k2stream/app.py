"""The Faust app: our transport, every Faust default that we change, and the captures of this worker."""

import asyncio
import atexit
import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import faust
import pyarrow as pa
import structlog
from faust.web.base import Web
from faust.web.drivers.aiohttp import Web as AiohttpWeb

from k2stream.address import without_password
from k2stream.boot import PatientStart, Step
from k2stream.capture.capture import Capture
from k2stream.clock import Deadline
from k2stream.deadletter.topics import make_letter_topics
from k2stream.errors import K2Error, SettingsError
from k2stream.health import Health
from k2stream.home import Home
from k2stream.logs import say_last
from k2stream.object_store import object_store
from k2stream.process import tune_process
from k2stream.records import TopicPartition
from k2stream.settings import Settings
from k2stream.topics import LETTER_TOPICS, require_co_partitioned, resolve
from k2stream.transport.conductor import BatchConductor, KeepingTopic
from k2stream.transport.open import open_sink
from k2stream.transport.sink import LogSink
from k2stream.watch import EVERY_SECONDS, Asked, Teller, Watch
from k2stream.web.guard import require_key
from k2stream.web.port import require_free

log = structlog.get_logger(__name__)

NO_TOPIC_SECONDS = 2.0
"""How often a worker without any topic of a pattern looks: it came before `k2 topics apply`, or before the first feed."""
BATCH_CHANNEL_EVENTS = 16
"""A batch topic's channel holds so few events; the real bound is settings.fetch_buffer_bytes."""


class NamedTopic(faust.Topic):
    """A topic of any number of names; Faust's own raises where `faust -A agents agents` asks for the name of several."""

    def get_topic_name(self) -> str:
        return ",".join(self.topics or ())


class BatchTopic(KeepingTopic, NamedTopic):
    """A topic whose names are those that its patterns match today, and whose events are Batches."""

    names: "_Names"

    @property
    def topics(self) -> Sequence[str]:
        return self.names

    @topics.setter
    def topics(self, names: Sequence[str]) -> None:
        """Clones share one list, so a new name reaches the stream of a running agent."""
        self.names = names if isinstance(names, _Names) else _Names(names)

    def get_topic_name(self) -> str:
        """Before the worker's first look at the log nothing matches yet: then the patterns."""
        return super().get_topic_name() or self.names.patterns


class _Names(list[str]):
    """A list that is never falsy, so that Faust's `topics or []` keeps sharing it."""

    patterns = ""

    def __bool__(self) -> bool:
        return True


class K2App(faust.App):
    """A Faust app that knows its settings, its health and its captures."""

    settings: Settings
    health: Health
    sink: LogSink
    batch_handler: "K2App"
    BootStrategy = PatientStart

    def use(self, settings: Settings) -> None:
        self.settings, self.health, self.batch_handler = settings, Health(), self
        self.watch = Watch(self.health)
        self.captures: dict[str, Capture] = {}
        self.patterns: dict[str, tuple[tuple[str, ...], BatchTopic]] = {}
        self.starters: dict[str, Callable[[K2App], None]] = {}
        self.openers: dict[str, Callable[[K2App], None]] = {}
        self.report_parts: dict[str, Callable[[], Any]] = {}
        self.listeners: list[Callable[[str, pa.Table], None]] = []
        self.fatal: str | None = None
        self.is_booted = False

    # --- declaring ------------------------------------------------------------------------------------

    def batch_topic(self, data_type: str, patterns: str) -> BatchTopic:
        """A topic of Batches for a data type; `patterns` is a comma list in which `*` stands for one part of a name."""
        topic = BatchTopic(
            self, topics=_Names(), value_type=bytes, value_serializer="raw", key_type=bytes, key_serializer="raw", maxsize=BATCH_CHANNEL_EVENTS
        )
        topic.names.patterns = patterns
        self.patterns[data_type] = (tuple(p.strip() for p in patterns.split(",") if p.strip()), topic)
        return topic

    def on_boot(self, data_type: str) -> Callable[[Callable[["K2App"], None]], Callable[["K2App"], None]]:
        """Register what an agent does before the worker reads: open its edges. Done again while it raises a retriable K2Error."""

        def register(starter: Callable[["K2App"], None]) -> Callable[["K2App"], None]:
            self.starters[data_type] = starter
            return starter

        return register

    def on_topic(self, data_type: str) -> Callable[[Callable[["K2App"], None]], Callable[["K2App"], None]]:
        """The same for a data type that opens its edges with its first topic, and not at all where the log has none."""

        def register(opener: Callable[["K2App"], None]) -> Callable[["K2App"], None]:
            self.openers[data_type] = opener
            return opener

        return register

    def when_committed(self, told: Callable[[str, pa.Table], None]) -> None:
        """Tell `told` the data type and the rows of each window of trades or quotes that is in its table."""
        self.listeners.append(told)

    def committed(self, data_type: str, rows: pa.Table) -> None:
        """A window's rows are in their table."""
        for told in self.listeners:
            told(data_type, rows)

    def on_report(self, name: str, part: Callable[[], Any]) -> None:
        """Show what `part` gives, any JSON value, under `name` on `/state`."""
        self.report_parts[name] = part

    def _new_web(self) -> Web:
        web = super()._new_web()
        require_key(cast("AiohttpWeb", web).web_app, self.settings.web_key)
        return web

    # --- life -----------------------------------------------------------------------------------------

    async def on_first_start(self) -> None:
        try:
            self._claim()
            self.sink = open_sink(self.settings)
            await super().on_first_start()
        except K2Error as exc:
            self.fatal = str(exc)
            log.error("worker.not_started", cause=str(exc))
            atexit.register(say_last, str(exc))
            raise SystemExit(1) from None
        self.add_future(self._keep_telling())

    def _claim(self) -> None:
        """Before Faust makes a folder or opens its port: what is not there or taken is said in one sentence."""
        tune_process()
        os.umask(0o077)  # nothing that a worker or its children make is for others
        self.hold = Home.open(self.settings.home).hold()  # `k2 reset` is refused while this process lives
        require_free(self.settings.web_host, self.settings.web_port)

    def boot_steps(self) -> Iterator[Step]:
        """What has to succeed before anything is read; boot.py asks again where a service is away."""
        yield Step("log", f"the log at {without_password(self.settings.broker_url())}", self._open_log)
        where = _tables_of(self.settings)
        for data_type, starter in self.starters.items():
            yield Step(f"tables of {data_type}", where, lambda s=starter: asyncio.to_thread(s, self))  # type: ignore[misc] # lambda default

    async def _open_log(self) -> None:
        try:
            await make_letter_topics(self.sink, self.settings, LETTER_TOPICS)
            found = await self._new_topics()
        except K2Error as exc:
            if self.settings.broker:
                raise
            raise SettingsError(str(exc)) from exc  # files of this machine do not come by waiting
        try:
            await self._take_up(found)
        except K2Error as exc:
            if not exc.is_retriable:
                raise
            self.health.red("topics", str(exc))  # watch_topics asks again; data types that are well do not wait for it

    async def on_booted(self) -> None:
        """Every step has passed: the loops start, then Faust starts the consumer and the agents."""
        self.is_booted = True
        for capture in self.captures.values():
            self.add_future(capture.run())
        where = f"The log at {without_password(self.settings.broker_url())}"
        self.watch.add(Asked("log", where, self.sink.topics, is_told_by_use=False))
        self.add_future(self.watch_topics())
        self.add_future(self._keep_asking())

    async def _keep_telling(self) -> None:
        """One line every few seconds while something is wrong, from the first second on."""
        teller = Teller(self.health)
        while not self.should_stop:
            teller.tell()
            await self.sleep(EVERY_SECONDS)

    async def _keep_asking(self) -> None:
        while not self.should_stop:
            await self.watch.ask_all()
            await self.sleep(EVERY_SECONDS)

    async def _new_topics(self) -> dict[str, list[str]]:
        """Names that match a data type's patterns today and did not before. Raises SettingsError where redundant topics do not fit each other."""
        existing = await self.sink.topics()
        found = {d: [n for n in resolve(patterns, existing, d) if n not in topic.names] for d, (patterns, topic) in self.patterns.items()}
        read = {*self.batch_topics(), *(name for names in found.values() for name in names)}
        require_co_partitioned({name: existing[name] for name in read & existing.keys()})
        return {data_type: names for data_type, names in found.items() if names}

    async def _take_up(self, found: Mapping[str, Sequence[str]]) -> None:
        """Give each data type's topic its new names; before its first, its edges are open.

        Raises the K2Error of the first whose edges cannot be opened, once all others have their names.
        """
        trouble: K2Error | None = None
        for data_type, names in found.items():
            try:
                await self._open_edges(data_type)
            except K2Error as exc:
                trouble = trouble or exc
                continue
            log.info("topics.found", data_type=data_type, topics=names)
            self.patterns[data_type][1].names.extend(names)
        if trouble is not None:
            raise trouble

    async def _open_edges(self, data_type: str) -> None:
        """Of a data type that opens them with its first topic; nothing if they are open. Raises K2Error."""
        if data_type in self.openers and data_type not in self.captures:
            await asyncio.to_thread(self.openers[data_type], self)
            if self.is_booted:
                self.add_future(self.captures[data_type].run())

    async def watch_topics(self) -> None:
        """Resolve patterns again and again; a new topic is subscribed without a restart."""
        while not self.should_stop:
            refresh_seconds = self.settings.topic_refresh_ms / 1000
            is_complete = all(len(topic.names) for _, topic in self.patterns.values())
            await self.sleep(refresh_seconds if is_complete else min(refresh_seconds, NO_TOPIC_SECONDS))
            try:
                await self._take_up(await self._new_topics())
            except K2Error as exc:
                self.health.red("topics", str(exc))
            else:
                self.health.green("topics")
            cast("BatchConductor", self.topics).ensure_subscribed()  # also with what was found beside the trouble

    def stop_for(self, sentence: str) -> None:
        """End the worker with exit code 1 and one sentence that says why."""
        if self.fatal is None:
            self.fatal = sentence
            log.error("worker.stopped", cause=sentence)
            atexit.register(say_last, sentence)
            self.loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        """Stop in good order, as for a signal, but with exit code 1: a crash would leave the worker waiting for nothing."""
        worker = self.beacon.root.data if self.beacon.root is not None else None
        if not isinstance(worker, faust.Worker):
            self._crash(SystemExit(1))
            return
        worker.crash_reason = SystemExit(1)  # raised when all services have stopped
        os.kill(os.getpid(), signal.SIGTERM)

    # --- BatchHandler: each data type's capture answers for its own topics ------------------------------

    def batch_topics(self) -> frozenset[str]:
        return frozenset(name for _, topic in self.patterns.values() for name in topic.names)

    def _by_capture(self, tps: set[TopicPartition]) -> dict[str, set[TopicPartition]]:
        owned: dict[str, set[TopicPartition]] = {}
        for tp in tps:
            owned.setdefault(self._data_type(tp.topic), set()).add(TopicPartition(*tp))
        return owned

    def _data_type(self, topic: str) -> str:
        return next(d for d, (_, t) in self.patterns.items() if topic in t.names)

    def assigned(self, tps: set[TopicPartition]) -> None:
        """A data type that got no partition is not asked for positions, so it is told here to keep nothing."""
        for data_type in self.captures.keys() - self._by_capture(tps).keys():
            self.captures[data_type].let_go()

    async def positions(self, tps: set[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Those of every data type that knows its own; raises the trouble of one if none does. Each shows its trouble itself."""
        by_capture = self._by_capture(tps)
        answers = await asyncio.gather(*(self.captures[d].positions(own) for d, own in by_capture.items()), return_exceptions=True)
        troubles = [answer for answer in answers if isinstance(answer, BaseException)]
        if troubles and len(troubles) == len(answers):
            raise troubles[0]
        return {tp: offset for answer in answers if not isinstance(answer, BaseException) for tp, offset in answer.items()}

    async def revoke(self, tps: set[TopicPartition], deadline: Deadline) -> None:
        if self.fatal is not None:  # what just failed three times is not tried once more on the way out
            deadline = Deadline.after(0)
        await asyncio.gather(*(self.captures[d].revoke(own, deadline) for d, own in self._by_capture(tps).items()))

    def topic_lost(self, tp: TopicPartition, first: int, last: int) -> None:
        self.captures[self._data_type(tp.topic)].topic_lost(tp, first, last)

    def report(self) -> dict[str, Any]:  # JSON
        """What `/state` shows."""
        process = {"cpu_seconds": time.process_time(), "peak_rss_mb": peak_rss_mb()}
        health = {"healthy": self.health.is_green(), "causes": self.health.causes()}
        parts = {name: part() for name, part in self.report_parts.items()}
        letters = {"dead_letters_by_reason": dict(sum((c.progress.reasons for c in self.captures.values()), Counter()))}
        by_type = {d: c.state() for d, c in self.captures.items()}
        return {"app": self.conf.id, "started": self.is_booted, "process": process, **health, **letters, **parts, **by_type}


def create_app(settings: Settings) -> K2App:
    """An app for `settings`; opens nothing until it is started."""
    app = K2App(
        settings.app_id,
        broker=settings.broker_url(),
        store="memory://",
        autodiscover=False,
        datadir=str(settings.home_path("faust")),
        web_bind=settings.web_host,
        web_host=settings.web_host,
        web_port=settings.web_port,
        stream_wait_empty=False,
        topic_disable_leader=True,
        topic_partitions=settings.partitions,
        broker_session_timeout=settings.session_timeout_ms / 1000,
        broker_heartbeat_interval=settings.heartbeat_interval_ms / 1000,
        consumer_auto_offset_reset="earliest",
        Topic=NamedTopic,
    )
    app.use(settings)
    return app


def _tables_of(settings: Settings) -> str:
    """Catalog and store of the tables, as people may see them."""
    catalog = without_password(settings.catalog_uri) or "SQLite under K2_HOME"
    store = without_password(settings.warehouse)
    remote = object_store(settings)
    endpoint = f" at {without_password(remote.endpoint)}" if remote is not None and remote.endpoint else ""
    return f"the tables: catalog {catalog}" + (f", files in {store}{endpoint}" if store else "")


def peak_rss_mb() -> float:
    """The most memory this process ever held, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10))
