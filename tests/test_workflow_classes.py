"""What a class of workflows may be: its names are its own, but for the few that belong to z0."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import z0
from z0.testing import VirtualClock, crash

KEPT = ("history", "body", "engine", "host", "journal", "status", "address", "rested", "waits", "name", "clock")
DONE = ("note", "enter", "begin", "go_on", "alarm_us", "wait_until")
INSIDE = KEPT + DONE
"""Names that z0 has for what it keeps of an instance, and that a program may well have for something else."""


class Orders(z0.Workflow):
    history: list[str]

    def __init__(self) -> None:
        for name in INSIDE:
            setattr(self, name, [])

    async def run(self, event: z0.Event[str], step: z0.Step) -> str:
        self.history.append(await step.do("pack", lambda: "packed"))
        await step.sleep("a day", "1 day")
        self.history.append(await step.do("send", self.note_of, retries=z0.Retries(limit=1, delay="1 hour")))
        for name in INSIDE:
            setattr(self, name, name)
        return await step.do("end", lambda: "ended")

    def note_of(self) -> str:
        if not getattr(self.env, "tried", False):
            self.env.tried = True
            raise ConnectionError("closed")
        return "sent"


class Env:
    tried = False


async def test_a_class_and_its_instances_may_have_any_names_that_z0_uses_inside(
    data: Path, clock: VirtualClock
) -> None:
    env = Env()
    async with z0.Runtime(data, actors=[Orders], clock=clock, env=env) as runtime:
        await runtime.workflows.create(Orders, "a", id="a")
        await clock.settle()
        await crash(runtime)
    async with z0.Runtime(data, actors=[Orders], clock=clock, env=env) as runtime:
        instance = runtime.workflows.get(Orders, "a")
        await clock.advance("26 hours")
        assert await instance.result() == "ended"
        taken = [event.step_name async for event in instance.events() if event.type == "step_completed"]
    assert taken == ["pack", "send", "end"]


@pytest.mark.parametrize("name", ["start", "alarm", "id", "workflows"])
def test_what_belongs_to_z0_is_refused_where_the_class_is_written(name: str) -> None:
    async def theirs(self: Any) -> None: ...

    with pytest.raises(TypeError, match=rf"Mine\.{name}: the name belongs to z0\.Workflow"):
        type("Mine", (z0.Workflow,), {name: theirs})
    mixin = type("Mixin", (), {name: theirs})
    with pytest.raises(TypeError, match=rf"Mine\.{name}: the name belongs"):
        type("Mine", (mixin, z0.Workflow), {})


async def test_classes_may_share_what_they_do_by_inheritance(data: Path, clock: VirtualClock) -> None:
    class Shop(z0.Workflow):
        namespace = "Shop"
        retries = z0.Retries(limit=7)

        async def run(self, event: z0.Event[int], step: z0.Step) -> Any:
            return await step.do("price", lambda: self.price(event.payload))

        def price(self, amount: int) -> int:
            return amount

    class Dear:
        def price(self, amount: int) -> int:
            return 2 * super().price(amount)  # type: ignore[misc, no-any-return]

    class DearShop(Dear, Shop):
        namespace = "DearShop"

        async def run(self, event: z0.Event[int], step: z0.Step) -> Any:
            return "EUR", await super().run(event, step)

    async with z0.Runtime(data, actors=[Shop, DearShop], clock=clock) as runtime:
        results = [await (await runtime.workflows.create(cls, 5)).result() for cls in (Shop, DearShop)]
    assert results == [5, ("EUR", 10)]
    assert DearShop.retries.limit == 7


class Totals(z0.Workflow):
    """Keeps in itself what it has come to."""

    env: list[str]
    undoes = False

    def __init__(self) -> None:
        self.total = 0

    async def run(self, event: z0.Event[int], step: z0.Step) -> int:
        for number in range(3):
            self.total += await step.do(f"part {number}", lambda: 100)
        undo = self.undo if self.undoes else None
        self.total += await step.do("risky", self.risky, retries=z0.Retries(limit=0), rollback=undo)
        await step.sleep("a day", "1 day")
        if event.payload > 1:
            step.continue_as_new(event.payload - 1)
        return self.total

    def risky(self) -> int:
        if "fail" in self.env:
            self.env.remove("fail")
            raise ConnectionError("closed")
        return 100

    def undo(self) -> None:
        self.env.append(f"undone at {self.total}")

    async def so_far(self) -> int:
        return self.total


@pytest.mark.parametrize("what", ["retry", "restart", "pause and resume", "continue as new", "a crash"])
async def test_a_body_that_runs_again_finds_nothing_of_another_run_in_itself(
    what: str, data: Path, clock: VirtualClock
) -> None:
    env = ["fail"] if what == "retry" else []
    async with z0.Runtime(data, actors=[Totals], clock=clock, env=env) as runtime:
        instance = await runtime.workflows.create(Totals, 3 if what == "continue as new" else 1, id="a")
        await clock.settle()
        if what == "retry":
            assert (await instance.status()).status == "errored"
            await instance.retry()
        elif what == "restart":
            await instance.restart()
        elif what == "pause and resume":
            await instance.pause()
            await instance.resume()
        await clock.settle()
        assert await runtime.get(Totals, "a").so_far() == 400
        if what == "a crash":
            await crash(runtime)
    async with z0.Runtime(data, actors=[Totals], clock=clock, env=env) as runtime:
        await clock.advance("4 days")
        assert await runtime.workflows.get(Totals, "a").result() == 400


class Undone(Totals):
    undoes = True


async def test_what_undoes_a_step_belongs_to_the_run_that_has_come_by_it(data: Path, clock: VirtualClock) -> None:
    env: list[str] = []
    async with z0.Runtime(data, actors=[Undone], clock=clock, env=env) as runtime:
        instance = await runtime.workflows.create(Undone, 1)
        await clock.settle()
        await instance.pause()
        await instance.terminate(rollback=True)
        await clock.settle()
    assert env == ["undone at 400"]


CRON = "0 9 * * *"
WRONG: dict[str, dict[Any, str]] = {
    "version": {"1.2": "give a whole number", True: "give a whole number"},
    "timeout": {0: "leaves no time; give a longer one, or None", "5 minuets": "not a span", -1: "not a span"},
    "execution_max": {0: "leaves no time", "a day": "not a span"},
    "sleep_max": {None: "not a span", "9000 years": "give 365,000 days at most"},
    "steps_max": {0: "give 1 or more, or None for no end", "many": "give a whole number, or None for no end"},
    "recoveries_max": {0: "give 1 or more, or None", 2.5: "give a whole number"},
    "result_bytes": {0: "give 1 or more", "1 MiB": "give a whole number", None: "give a whole number"},
    "blob_bytes": {-1: "give 0 or more", 1e9: "give a whole number"},
    "rollback_continues": {"no": "give True or False", 1: "give True or False"},
    "retention": {
        "7 dayz": "not a span",
        -5: "not a span",
        float("inf"): "not a span",
        10**400: "too large",
        "9000 years": "give 365,000 days at most",
        timedelta.max: "give 365,000 days at most",
        property(lambda self: "7 days"): "not a span",
    },
    "concurrency": {
        10: r"give z0\.Concurrency\(limit=\.\.\.\)",
        "x": "give z0.Concurrency",
        (1,): "give z0.Concurrency",
    },
    "debounce": {"5 seconds": r"give z0\.Debounce\(wait=\.\.\.\), or None"},
    "schedules": {
        CRON: r"give a list or tuple, \[z0\.Schedule\(cron='0 9 \* \* \*'\)\]",
        (CRON,): r"give z0\.Schedule\(cron='0 9 \* \* \*'\)",
        z0.Schedule(cron=CRON): "give a list or tuple",
        None: "give a list or tuple",
    },
}


@pytest.mark.parametrize("setting", [*WRONG])
def test_a_setting_that_cannot_be_is_refused_where_the_class_is_written(setting: str) -> None:
    for value, instead in WRONG[setting].items():
        with pytest.raises((TypeError, ValueError), match=instead) as refused:
            type("Wrong", (z0.Workflow,), {setting: value})
        assert str(refused.value).startswith(f"Wrong.{setting}")
        assert repr(value).strip("(,)")[:100] in str(refused.value)


@pytest.mark.parametrize(("setting", "value"), [("retention", {"success": "1 day"}), ("concurrency", {"limit": 1})])
def test_a_setting_that_is_a_dict_in_other_houses_is_refused(setting: str, value: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"Wrong\.{setting}=\{{.*give "):
        type("Wrong", (z0.Workflow,), {setting: value})


def test_every_setting_may_be_what_its_documentation_says() -> None:
    right: dict[str, tuple[Any, ...]] = {
        "version": (0, 2),
        "timeout": (timedelta(minutes=1), 0.5, None),
        "execution_max": (None, "1 day"),
        "steps_max": (None, 1),
        "recoveries_max": (None, 1),
        "blob_bytes": (0, 5),
        "retention": ("1000 years", 0, z0.Retention(success=0, error=None), None),
        "concurrency": ((z0.Concurrency(limit=1), z0.singleton()), z0.singleton(), [], None),
        "debounce": (z0.Debounce(wait=5), None),
        "schedules": ((z0.Schedule(cron=CRON),), [z0.Schedule(cron=CRON)], ()),
        "rollback_continues": (True, False),
    }
    for setting, values in right.items():
        for value in values:
            assert getattr(type("Right", (z0.Workflow,), {setting: value}), setting) == value


def test_spans_for_which_there_is_no_date_are_refused_wherever_they_are_given() -> None:
    with pytest.raises(ValueError, match=r"Retention\.error='9000 years': give 365,000 days at most"):
        z0.Retention(error="9000 years")
    with pytest.raises(ValueError, match=r"Debounce\.wait='9000 years': give"):
        z0.Debounce(wait="9000 years")
    with pytest.raises(ValueError, match=r"Debounce\.max_wait='soon': not a span"):
        z0.Debounce(wait=1, max_wait="soon")


async def test_a_cron_expression_is_no_schedule_and_the_error_says_what_is(data: Path, clock: VirtualClock) -> None:
    async with z0.Runtime(data, actors=[Orders], clock=clock) as runtime:
        with pytest.raises(TypeError, match=r"schedule='0 9 \* \* \*': give z0\.Schedule\(cron='0 9"):
            await runtime.workflows.schedule(Orders, CRON)  # type: ignore[arg-type]
