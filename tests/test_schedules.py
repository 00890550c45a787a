"""Whatever runs first, and whatever fails meanwhile, z0 keeps its promises: many schedules of many scenes.

What is checked in each is in tests/stage.py and tests/players.py; a failure says how to see it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import z0
from tests.players import Host, Player, Sleeper
from tests.stage import Oops, Place, Stage, at_once, scenario
from z0.testing import Point, fault

FAILURES = (z0.ActorReset, z0.CommitUnknown, z0.Overloaded)
NAMES = ("a", "b", "c")
COMMIT_CRASHES: tuple[Point, ...] = ("crash-before-commit", "crash-after-commit")


async def in_turn(stage: Stage, caller: str, actor: Player, name: str, number: int = 4, **options: Any) -> None:
    """A caller that sends one message after another, of every sort."""
    for n in range(number):
        key = f"{caller}{n}"
        match stage.simulation.below(5):
            case 0:
                await stage.call(actor.put(key), [(name, key)], **options)
            case 1:
                keys = [f"{key}/{part}" for part in range(3)]
                await stage.call(actor.slow(*keys), *([(name, each)] for each in keys), **options)
            case 2:
                await stage.call(actor.append("outside", external_id=key), [(name, key)], **options)
            case 3:
                await stage.call(actor.put_and_fail(key), allow=(Oops, *options.get("allow", (z0.Overloaded,))))
            case _:
                await stage.call(
                    actor.slow_and_fail(key, f"{key}/lost"),
                    [(name, key)],
                    far=True,  # its error says nothing of its first segment
                    allow=(Oops, *options.get("allow", (z0.Overloaded,))),
                )


@scenario(Player)
async def test_messages_of_every_sort_from_several_callers_keep_their_order(stage: Stage) -> None:
    a = stage.get(Player, "a")
    await at_once(*(in_turn(stage, caller, a, "a") for caller in "pqr"))


@scenario(Player)
async def test_messages_that_are_sent_without_waiting_arrive_in_the_order_of_sending(stage: Stage) -> None:
    a, b = stage.get(Player, "a"), stage.get(Player, "b")
    calls = []
    for n in range(12):
        actor, name = (a, "a") if stage.simulation.below(3) else (b, "b")
        key = str(n)
        message = actor.slow(key) if stage.simulation.below(2) else actor.put(key)
        calls.append(stage.call(message, [(name, key)]))
    await at_once(*calls)


@scenario(Player)
async def test_nothing_else_runs_while_a_message_has_the_gate(stage: Stage) -> None:
    a = stage.get(Player, "a")

    async def block(caller: str) -> None:
        for n in range(3):
            keys = [f"{caller}{n}/{part}" for part in range(2)]
            fail = stage.simulation.below(4) == 0
            await stage.call(a.alone(keys, fail), *([("a", key)] for key in keys), allow=(Oops, *FAILURES), far=fail)

    await at_once(block("p"), block("q"), in_turn(stage, "r", a, "a", allow=FAILURES))


@scenario(Player)
async def test_a_message_to_another_actor_leaves_when_what_was_written_before_is_committed(stage: Stage) -> None:
    actors = {name: stage.get(Player, name) for name in NAMES}

    async def caller(caller: str, route: list[str]) -> None:
        for n in range(3):
            key = f"{caller}{n}"
            places: list[list[Place]] = []
            back: list[list[Place]] = []
            for place in route:
                places.append([(place, f"{key}/out")])
                back.insert(0, [(place, f"{key}/back")])
                key += "+"
            message = actors[route[0]].pass_on(f"{caller}{n}", route[1:])
            await stage.call(message, *places, *back, far=True)

    await at_once(caller("p", ["a", "b", "c"]), caller("q", ["c", "a"]), caller("r", ["b", "a", "b", "c"]))


@scenario(Player)
async def test_what_an_actor_tells_others_leaves_in_order_and_after_its_writes(stage: Stage) -> None:
    actors = {name: stage.get(Player, name) for name in NAMES}
    faults = stage.simulation.below(2)

    async def caller(caller: str, name: str) -> None:
        for n in range(3):
            key = f"{caller}{n}"
            message = actors[name].tell(key, ["b", "c", "b", "c", "c"])
            await stage.call(message, [(name, key)], far=True, allow=FAILURES)

    trouble = [stage.trouble("commit-lost", "commit-kept", "storage")] if faults else []
    await at_once(caller("p", "a"), caller("q", "b"), caller("r", "a"), *trouble)


@scenario(Player)
async def test_a_call_back_is_answered_unless_the_gate_is_held(stage: Stage) -> None:
    actors = {name: stage.get(Player, name) for name in NAMES}

    cramped = stage.simulation.options.open_files < len(NAMES)  # who waits for another's place may wait in vain
    allow = FAILURES if cramped else (z0.Overloaded,)

    async def caller(name: str, other: str, held: bool) -> None:
        for _ in range(3):
            reply = await stage.call(actors[name].call_back(other, held), far=True, allow=allow)
            if reply not in ("cycle" if held else "answer", None):
                stage.violation(f"{name} asked {other}: {reply}")

    await at_once(
        caller("a", "b", False),
        caller("b", "a", False),
        caller("c", "a", True),
        in_turn(stage, "p", actors["a"], "a", allow=allow),
    )


@scenario(Sleeper)
async def test_alarms_run_once_beside_messages_failures_and_evictions(stage: Stage) -> None:
    actors = {name: stage.get(Sleeper, name) for name in NAMES}
    armed: list[tuple[str, str]] = []
    allow = (z0.RuntimeClosed, *FAILURES)

    async def arm(name: str) -> None:
        for n in range(4):
            key = f"{stage.simulation.one_of(['alarm', 'fails', 'slow'])} {name}{n}"
            after = stage.simulation.one_of([0, 0.001, 1, 30])
            armed.append((name, key))
            for end in "!", "!!":
                stage.expect(name, key + end)
            await stage.call(actors[name].arm(key, after), [(name, key)], allow=allow)
            await stage.clock.sleep(stage.simulation.one_of([0, 0.5, 11]))

    async def evict() -> None:
        for _ in range(4):
            await stage.clock.sleep(1)
            await stage.runtime.evict(Sleeper, stage.simulation.one_of(NAMES))

    troubles = stage.simulation.one_of(["none", "commits", "openings", "catalogue", "crash"])
    stage.simulation.note(troubles)
    tasks = [arm(name) for name in NAMES] + [evict(), in_turn(stage, "p", actors["a"], "a", allow=allow)]
    match troubles:
        case "commits":
            await at_once(*tasks, stage.trouble("commit-lost", "commit-kept", "storage"))
        case "openings":
            await at_once(*tasks, stage.trouble("open", "register", "close", "checkpoint"))
        case "catalogue":
            with stage.broken_catalogue():
                await at_once(*tasks)
        case "crash":
            running = [asyncio.create_task(task) for task in tasks]
            await stage.clock.sleep(stage.simulation.one_of([0.01, 1, 5]))
            await stage.crash()
            for task in running:
                task.cancel()
            await asyncio.wait(running)
            await stage.reopen()
        case _:
            await at_once(*tasks)
    await stage.clock.sleep("4 hours")  # retries and openings that failed are over
    for name, key in armed:
        if stage.is_committed(name, key):
            for end in ["!", "!!"] if key.startswith("slow") else ["!"]:
                if not stage.is_committed(name, key + end):
                    stage.violation(f"the alarm {key} of {name} never ran")


@scenario(Player, Host)
async def test_evictions_and_stop_hooks_are_in_nobodys_way(stage: Stage) -> None:
    a, b = stage.get(Player, "a"), stage.get(Host, "b")

    async def evict() -> None:
        for _ in range(6):
            await stage.clock.sleep(stage.simulation.one_of([0, 0.01, 1]))
            await stage.runtime.evict(*stage.simulation.one_of([(Player, "a"), (Host, "b")]))

    allow = (Oops, z0.Overloaded)
    await at_once(in_turn(stage, "p", a, "a"), in_turn(stage, "q", b, "b", allow=allow), evict(), evict())


@scenario(Player, Host)
async def test_more_actors_than_files_take_turns(stage: Stage) -> None:
    names = [f"{cls.namespace}{n}" for n in range(4) for cls in (Player, Host)]
    allow = (Oops, z0.Overloaded)

    async def caller(caller: str) -> None:
        for n in range(6):
            name = stage.simulation.one_of(names)
            cls = Player if name.startswith("Player") else Host
            key = f"{caller}{n}"
            actor = stage.get(cls, name)
            message = actor.put(key) if stage.simulation.below(2) else actor.slow(key)
            await stage.call(message, [(name, key)], allow=allow, sender=caller)

    await at_once(*(caller(name) for name in "pqrs"))


@scenario(Player)
async def test_a_caller_that_is_cancelled_leaves_the_whole_of_its_message_or_nothing(stage: Stage) -> None:
    a, b = stage.get(Player, "a"), stage.get(Player, "b")

    async def cancelled(caller: str) -> None:
        for n in range(4):
            name, actor = stage.simulation.one_of([("a", a), ("b", b)])
            keys = [f"{caller}{n}/{part}" for part in range(3)]
            places = [[(name, key)] for key in keys]
            match stage.simulation.below(4):
                case 0:
                    call = stage.call(actor.put(keys[0]), *places[:1], sender=caller)
                case 1:
                    message: Coroutine[Any, Any, Any] = actor.append("outside", external_id=keys[0])
                    call = stage.call(message, *places[:1], sender=caller)
                case 2:
                    call = stage.call(actor.alone(keys), *places, sender=caller)
                case _:
                    call = stage.call(actor.slow(*keys), *places, sender=caller)
            task = asyncio.create_task(call)
            stage.simulation.cancel_somewhere(task)
            await asyncio.wait([task])

    await at_once(*(cancelled(caller) for caller in "pqrs"))


@scenario(Player)
async def test_commits_that_fail_take_back_what_they_must_and_nothing_else(stage: Stage) -> None:
    actors = {name: stage.get(Player, name) for name in NAMES}
    callers = [
        in_turn(stage, f"{caller}{name}", actors[name], name, 6, allow=FAILURES) for name in "ab" for caller in "pq"
    ]
    await at_once(*callers, stage.trouble("commit-lost", "commit-kept", "storage", times=4))


@scenario(Player, Host)
async def test_openings_and_closings_that_fail_cost_nobody_more_than_an_error(stage: Stage) -> None:
    actors = {name: stage.get(Player, name) for name in NAMES}
    host = stage.get(Host, "h")

    async def evict() -> None:
        for _ in range(8):
            await stage.clock.sleep(stage.simulation.one_of([0, 0.1, 1]))
            name = stage.simulation.one_of(NAMES)
            await stage.runtime.evict(Player, name)

    callers = [in_turn(stage, f"p{name}", actors[name], name, 6, allow=FAILURES) for name in NAMES]
    callers.append(in_turn(stage, "q", host, "h", 6, allow=(Oops, *FAILURES)))
    trouble = stage.trouble("open", "register", "close", "checkpoint", "commit-kept", times=5)
    if stage.simulation.below(3):
        await at_once(*callers, evict(), trouble)
    else:
        with stage.broken_catalogue():
            await at_once(*callers, evict(), trouble)


@scenario(Player)
async def test_what_nobody_waits_for_is_kept_before_what_is_confirmed_after_it(stage: Stage) -> None:
    a = stage.get(Player, "a")
    faults = stage.simulation.below(2)

    async def caller(caller: str) -> None:
        noted: list[list[tuple[str, str]]] = []
        for n in range(6):
            key = f"{caller}{n}"
            if stage.simulation.below(3):
                await stage.call(a.note(key), sender=f"{caller} notes", allow=FAILURES)
                noted.append([("a", key)])
                stage.expect("a", key)
                continue
            resets = stage.runtime.node.metrics.resets.total()
            await stage.call(a.put(key), [("a", key)], sender=caller, allow=FAILURES)
            if stage.calls[-1].outcome == "done" and stage.runtime.node.metrics.resets.total() == resets == 0:
                for place in noted:
                    stage.promise(*place[0])

    trouble = [stage.trouble("commit-lost", "commit-kept", "storage")] if faults else []
    await at_once(caller("p"), caller("q"), *trouble)


@scenario(Player)
async def test_work_in_the_background_keeps_its_actor_and_goes_through_the_mailbox(stage: Stage) -> None:
    a = stage.get(Player, "a")
    faults = stage.simulation.below(2)

    async def later(caller: str) -> None:
        for n in range(4):
            key = f"{caller}{n}"
            await stage.call(a.later(key), [("a", key)], allow=FAILURES)
            await stage.clock.sleep(stage.simulation.one_of([0, 0.1, 15]))
            await stage.runtime.evict(Player, "a")

    trouble = [stage.trouble("commit-lost", "commit-kept", "storage")] if faults else []
    await at_once(later("p"), later("q"), in_turn(stage, "r", a, "a", allow=FAILURES), *trouble)


@scenario(Player)
async def test_a_deadline_that_passes_says_whether_the_message_had_begun(stage: Stage) -> None:
    actors = {name: stage.get(Player, name) for name in NAMES}
    allow = (z0.DeadlineExceeded, z0.Overloaded)

    async def caller(caller: str) -> None:
        for n in range(4):
            name = stage.simulation.one_of(NAMES)
            keys = [f"{caller}{n}/{part}" for part in range(2)]
            with stage.runtime.deadline(stage.simulation.one_of([0, 0.0005, 0.01, 1, 5])):
                if stage.simulation.below(3):
                    message = actors[name].slow(*keys)
                    await stage.call(message, *([(name, key)] for key in keys), sender=caller, allow=allow)
                else:
                    places = [[(name, f"{caller}{n}/out")], [("c", f"{caller}{n}+/out")]]
                    places += [[("c", f"{caller}{n}+/back")], [(name, f"{caller}{n}/back")]]
                    message = actors[name].pass_on(f"{caller}{n}", ["c"])
                    await stage.call(message, *places, sender=caller, allow=allow, far=True)

    await at_once(*(caller(name) for name in "pqr"))


@scenario(Player)
async def test_a_message_that_is_sent_again_under_its_key_happens_once(stage: Stage) -> None:
    a, b = stage.get(Player, "a"), stage.get(Player, "b")

    async def stubborn(caller: str) -> None:
        for n in range(4):
            name, actor = stage.simulation.one_of([("a", a), ("b", b)])
            key = f"{caller}{n}"
            first = await stage.persist(partial(actor.once, key), [(name, key)])
            again = await stage.persist(partial(actor.once, key), [(name, key)])
            if first != again:
                stage.violation(f"{name}: {key} was answered by {first}, then by {again}")

    trouble = stage.trouble("commit-lost", "commit-kept", "storage", "open", times=4)
    await at_once(*(stubborn(caller) for caller in "pqr"), trouble)


@scenario(Player, Host)
async def test_closing_under_load_ends_all_that_was_begun(stage: Stage) -> None:
    await _end_under_load(stage, stage.runtime.close)


@scenario(Player, Host)
async def test_a_crash_under_load_loses_nothing_that_was_acknowledged(stage: Stage) -> None:
    async def crash() -> None:
        match stage.simulation.below(4):
            case 0:  # in the middle of closing
                closing = asyncio.create_task(stage.runtime.close())
                await stage.clock.sleep(stage.simulation.one_of([0, 0.001, 1]))
                await stage.crash()
                await closing
            case 1:  # at a commit
                point = stage.simulation.one_of(COMMIT_CRASHES)
                with fault(stage.runtime, point, nth=1 + stage.simulation.below(5)):
                    await stage.clock.sleep(1)
                await stage.crash()
            case _:
                await stage.crash()

    await _end_under_load(stage, crash)


async def _end_under_load(stage: Stage, end: Callable[[], Awaitable[None]]) -> None:
    actors = {"a": stage.get(Player, "a"), "b": stage.get(Player, "b"), "h": stage.get(Host, "h")}
    allow = (Oops, z0.RuntimeClosed, *FAILURES)
    callers = [
        asyncio.create_task(in_turn(stage, f"{caller}{name}", actor, name, 6, allow=allow))
        for caller in "pq"
        for name, actor in actors.items()
    ]
    callers += [asyncio.create_task(_list(stage)) for _ in range(2)]
    await stage.clock.sleep(stage.simulation.one_of([0, 0.001, 0.1, 2]))
    await end()
    await at_once(*callers)
    await stage.reopen()


async def _list(stage: Stage) -> None:
    """Look into the catalogue until the runtime is closed."""
    while True:
        try:
            await stage.runtime.list(Player)
            await stage.runtime.versions(Player)
        except z0.RuntimeClosed:
            return
        await stage.clock.sleep(0.01)


@scenario(Player, Host, Sleeper)
async def test_everything_at_once_breaks_no_promise(stage: Stage) -> None:
    kinds: dict[str, type[Player]] = {"a": Player, "b": Player, "h": Host, "s": Sleeper}
    allow = (Oops, z0.Z0Error)
    below = stage.simulation.below

    def send(name: str, key: str) -> Coroutine[Any, Any, Any]:
        actor, keys = stage.get(kinds[name], name), [f"{key}/{part}" for part in range(3)]
        places = [[(name, each)] for each in keys]
        match below(8):
            case 0:
                return stage.call(actor.slow(*keys), *places, sender=key, allow=allow)
            case 1:
                return stage.call(actor.alone(keys), *places, sender=key, allow=allow)
            case 2:
                return stage.call(actor.append("outside", external_id=key), [(name, key)], sender=key, allow=allow)
            case 3:
                return stage.call(actor.once(key), [(name, key)], sender=key, allow=allow)
            case 4:
                return stage.call(actor.put_and_fail(key), allow=allow)
            case 5:
                stage.expect(name, f"{key}+")
                return stage.call(actor.later(key), [(name, key)], sender=key, allow=allow)
            case 6 if name == "s":
                stage.expect(name, f"{key}!")
                message = stage.get(Sleeper, name).arm(key, stage.simulation.one_of([0, 0.5, 20]))
                return stage.call(message, [(name, key)], sender=key, allow=allow)
            case _:
                return stage.call(actor.put(key), [(name, key)], sender=key, allow=allow)

    async def caller(caller: str) -> None:
        for n in range(5):
            with stage.runtime.deadline(stage.simulation.one_of([0.01, 1, 100])):
                task = asyncio.create_task(send(stage.simulation.one_of(list(kinds)), f"{caller}{n}"))
            if below(4) == 0:
                stage.simulation.cancel_somewhere(task)
            await asyncio.wait([task])

    async def disturb() -> None:
        for _ in range(5):
            await stage.clock.sleep(stage.simulation.one_of([0, 0.01, 0.3, 2]))
            name = stage.simulation.one_of(list(kinds))
            if below(5):
                await stage.runtime.evict(kinds[name], name)
            else:
                await stage.crash()
                await stage.reopen()

    points: tuple[Point, ...] = ("commit-lost", "commit-kept", "storage", "open", "register", "close", "checkpoint")
    await at_once(*map(caller, "pqrt"), disturb(), stage.trouble(*points))
