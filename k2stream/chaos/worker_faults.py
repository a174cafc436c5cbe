"""What can happen to workers: killed at a step or at any moment, stopped in order, asleep past their session, coming and going."""

import signal
import time
from functools import partial

from k2stream.chaos.crew import Member
from k2stream.chaos.fault import Fault, Hit
from k2stream.chaos.scene import Scene

STEPS = (
    *("decode", "0.settle", "1.rows", "1.events", "1.tracker", "1.fsync", "2.head", "3.before", "3.after", "4.decided"),
    *("5.head", "5.before", "5.after", "6.before", "6.saving", "6.after", "7.after"),
)
"""Where a worker can die on a window's way, in order; `restore` is met by whoever takes partitions over."""

ORDER_SECONDS = 30.0
"""Events, tracker files and gap events come every few windows only."""

MOST_TIMES = 2
AWAKE_SECONDS = 0.7
STOP_SECONDS = 30.0
STORM_BEAT_SECONDS = 5.0


def worker_faults(*, workers: int, session_seconds: float, storm_beats: int) -> list[Fault]:
    """The faults that need workers only; some need several."""
    alone = [
        *(Fault(f"kill at {step}", f"kill -9 at commit step {step}", partial(kill_at, (step,))) for step in STEPS),
        Fault("kill at restore", "kill -9 while a worker takes partitions over", kill_at_restore, weight=2),
        Fault("kill", "kill -9 at a random moment", partial(kill, 1), weight=4),
        Fault("stop", "a planned stop (SIGTERM) of a worker that is started again", stop, weight=2),
        Fault("pause", "SIGSTOP for less than a session", pause, weight=2),
    ]
    several = [
        Fault("kill two", "kill -9 of two workers at once", partial(kill, 2), weight=4),
        Fault("kill all", "kill -9 of all workers at once, as when their machine loses power", partial(kill, workers), weight=5),
        Fault("kill all at steps", "kill -9 of every worker at a commit step of its own", partial(kill_all_at_steps, workers), weight=10),
        Fault("zombie", "SIGSTOP past the session, others take over, SIGCONT", partial(zombie, session_seconds), weight=2),
        Fault("rebalance storm", f"a worker leaves or joins every {STORM_BEAT_SECONDS:.0f} s", partial(storm, storm_beats)),
    ]
    return [*alone, *(several if workers > 1 else [])]


def kill(count: int, scene: Scene) -> Hit:
    victims = scene.victims(count)
    scene.wait(scene.random.uniform(0, 1))
    for victim in victims:
        scene.crew.kill(victim)
    return Hit(names(*victims), count)


def kill_at(steps: tuple[str, ...], scene: Scene) -> Hit:
    """One worker a step; a step that none passes in time is met by a kill all the same."""
    victims = scene.victims(len(steps))
    orders = [f"{step}:{scene.random.randint(1, MOST_TIMES if step[0] in '0234' else 1)}" for step in steps]
    dying = [(victim, victim.starts) for victim in victims]
    for victim, order in zip(victims, orders, strict=False):
        scene.crew.order(victim, order)
    if not scene.until(lambda: all(has_died(victim, starts) for victim, starts in dying), ORDER_SECONDS):
        for victim, starts in dying:
            if not has_died(victim, starts):
                scene.crew.kill(victim)
    return Hit(", ".join(f"{victim.name} at {order}" for victim, order in zip(victims, orders, strict=False)), len(orders))


def kill_all_at_steps(workers: int, scene: Scene) -> Hit:
    return kill_at(tuple(scene.random.choices(STEPS, k=workers)), scene)


def kill_at_restore(scene: Scene) -> Hit:
    """Its worker dies, and the one that comes dies while it reads state for the partitions."""
    (victim,) = scene.victims(1)
    scene.crew.kill(victim)
    starts = victim.starts
    scene.crew.tend()  # buries it and starts the next one, which finds the order
    scene.crew.order(victim, f"restore:{scene.random.randint(1, 2)}")
    if not scene.until(lambda: victim.starts > starts + 1, ORDER_SECONDS):
        scene.crew.take_back(victim)
        return Hit(f"{victim.name}, and the next one lived")
    return Hit(f"{victim.name}, and the next one at restore", 2)


def stop(scene: Scene) -> Hit:
    """Exit code 0 is part of what is asked for."""
    (victim,) = scene.victims(1)
    began, process = time.monotonic(), victim.process
    scene.crew.send_away(victim)
    scene.until(lambda: process is None or process.exit_code() is not None, STOP_SECONDS)
    victim.is_away = False
    code = process.exit_code() if process is not None else None
    return Hit(f"{victim.name}, exit code {code} after {time.monotonic() - began:.1f} s")


def pause(scene: Scene) -> Hit:
    (victim,) = scene.victims(1)
    seconds = scene.random.uniform(0.5, 2.0)
    asleep(scene, victim, seconds)
    return Hit(f"{victim.name} for {seconds:.1f} s")


def zombie(session_seconds: float, scene: Scene) -> Hit:
    """Wakes up only when others have committed what was its own."""
    (victim,) = scene.victims(1)
    owned = victim.partitions()
    scene.crew.signal(victim, signal.SIGSTOP)
    began = time.monotonic()
    scene.wait(session_seconds + 1)
    before = scene.progress.vector()
    taken = scene.until(lambda: all(scene.progress.vector().get(tp, 0) > before.get(tp, 0) for tp in owned), 3 * session_seconds)
    scene.crew.signal(victim, signal.SIGCONT)
    scene.wait(AWAKE_SECONDS)
    return Hit(f"{victim.name} slept {time.monotonic() - began:.1f} s, its {len(owned)} partitions were {'taken over' if taken else 'NOT taken over'}")


def storm(beats: int, scene: Scene) -> Hit:
    """By turns somebody goes, in order or not, and somebody comes."""
    told = []
    for beat in range(beats):
        began = time.monotonic()
        away = [member for member in scene.crew.members if member.is_away and member.process is None]
        if away and beat % 2:
            scene.crew.start(away[0])
            told.append(f"+{away[0].name}")
        elif ready := scene.crew.ready():
            victim = scene.random.choice(ready)
            scene.crew.send_away(victim)
            told.append(f"-{victim.name}")
        scene.wait(max(0.0, STORM_BEAT_SECONDS - (time.monotonic() - began)))
    for member in scene.crew.members:
        member.is_away = False
    return Hit(f"{' '.join(told)}; no partition stood longer than {scene.progress.longest_stall():.1f} s", len(told))


def asleep(scene: Scene, victim: Member, seconds: float) -> None:
    scene.crew.signal(victim, signal.SIGSTOP)
    scene.wait(seconds)
    scene.crew.signal(victim, signal.SIGCONT)


def has_died(member: Member, starts: int) -> bool:
    """True if the worker of that start is gone, replaced already or not."""
    return member.starts > starts or not member.is_alive()


def names(*members: Member) -> str:
    return ", ".join(member.name for member in members)
