"""A plan of topics seen and carried out on a log."""

import asyncio
from collections.abc import Callable, Sequence

from k2stream.settings import Settings
from k2stream.topics.plan import Action, Declared, Found, Plan, Step, plan
from k2stream.transport.open import open_sink
from k2stream.transport.sink import LogSink


def plan_for(settings: Settings, declared: Sequence[Declared], *, delete: bool = False) -> Plan:
    """What the log that the settings name lacks; changes nothing, and makes no log where there is none. Raises TransportError."""
    if not settings.broker and not settings.home_path("log").exists():
        return plan(declared, {}, delete=delete)
    return asyncio.run(_plan_for(settings, declared, delete=delete))


def apply(settings: Settings, steps: Sequence[Step], *, told: Callable[[Step], None]) -> None:
    """Carry steps out one by one; each is told once it is done. Raises TransportError; what was done stays, and a new plan goes on from there."""
    asyncio.run(_apply(settings, steps, told))


async def observe(sink: LogSink) -> dict[str, Found]:
    """Every topic of a log."""
    return {name: Found(topic.partitions, topic.config) for name, topic in (await sink.describe_topics()).items()}


async def carry_out(sink: LogSink, step: Step) -> None:
    """One step; done twice it is as done once."""
    match step.action:
        case Action.CREATE:
            await sink.create_topic(step.topic, step.partitions, step.config)
        case Action.GROW:
            await sink.grow(step.topic, step.partitions)
        case Action.CONFIGURE:
            await sink.configure(step.topic, step.config)
        case Action.DELETE:
            await sink.delete_topic(step.topic)


async def _plan_for(settings: Settings, declared: Sequence[Declared], *, delete: bool) -> Plan:
    sink = open_sink(settings)
    try:
        return plan(declared, await observe(sink), delete=delete)
    finally:
        await sink.close()


async def _apply(settings: Settings, steps: Sequence[Step], told: Callable[[Step], None]) -> None:
    sink = open_sink(settings)
    try:
        for step in steps:
            await carry_out(sink, step)
            told(step)
    finally:
        await sink.close()
