"""Scripts that set themselves or each other off, and where that ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from reconciler.controllers.runnables import InFlight
from reconciler.core.chains import DEFAULT_LIMITS, SOON, Limits
from reconciler.core.gating import Condition, Gate
from reconciler.core.ledger import WhyNot
from reconciler.core.objects import DEVICES_V1BETA1, ObjectKey
from reconciler.core.runs import Cause, ExecutorId, Run, Write
from reconciler.core.triggers import Subscription
from tests.controllers.runpath import (
    SCRIPT,
    SWITCH,
    Rig,
    finish,
    reported,
    runnable,
    subscription,
)

OTHER = ObjectKey("default", "other")
LATER = SOON + 1


def follower(key: ObjectKey = SCRIPT, uid: str = "u1", **parts: Any) -> Subscription:
    """A Script that runs when the switch changes, which it may also write."""
    return replace(subscription(key, uid, reads=frozenset({"switch"})), **parts)


async def rigged(*followers: Subscription, limits: Limits = DEFAULT_LIMITS) -> Rig:
    """All have had their first run, and the switch is off."""
    rig = Rig(limits=limits)
    await rig.devices()
    await rig.report("off", name="state", key=SWITCH)
    for it in followers:
        rig.triggering.subscribe(it)
    taken(rig)
    return rig


def taken(rig: Rig) -> list[Run]:
    runs = [run for group in rig.queue.take(1_000) for run in group]
    for run in runs:
        rig.triggering.dispatched(run)
        rig.queue.done(run.script)
    return runs


async def wrote(rig: Rig, run: Run, value: str) -> None:
    """What `run` wrote to the switch; the watch brings it, and the switch has not moved yet."""
    flight = InFlight(
        run=run, runnable=runnable(run.script, run.uid), executor=ExecutorId("e"), deadline=0.0
    )
    effects = await rig.writer.perform(flight, [Write("fan", "state", value)])
    assert effects.message == ""
    await rig.sync()


async def moved(rig: Rig, value: str) -> None:
    await rig.report(value, name="state", key=SWITCH)


async def begun(rig: Rig, value: str, *, script: ObjectKey = SCRIPT) -> Run:
    """Somebody triggers a Script, which writes a value."""
    rig.triggering.request(script, Cause.MANUAL, b"")
    [run] = taken(rig)
    await wrote(rig, run, value)
    return run


def told(rig: Rig, script: ObjectKey = SCRIPT) -> dict[WhyNot, tuple[int, str]]:
    return {
        why: (entry.count, entry.detail)
        for (why, _), entry in rig.triggering.ledger.of(script).items()
        if why in {WhyNot.ECHO, WhyNot.LOOP}
    }


async def circled(rig: Rig, *, pause: float = 0.0) -> list[Run]:
    """Every run writes another value, and the switch follows: until nobody runs any more."""
    first = await begun(rig, "v0")
    found = [first]
    await moved(rig, "v0")
    while len(found) < 50 and (runs := taken(rig)):
        for run in runs:
            found.append(run)
            value = f"v{len(found)}"
            await wrote(rig, run, value)
            rig.clock.jump(pause)
            await moved(rig, value)
    return found


# Echoes.


def test_a_script_does_not_run_for_the_arrival_of_what_it_has_set():
    async def check() -> None:
        rig = await rigged(follower())
        await begun(rig, "on")
        await moved(rig, "on")
        assert (taken(rig), told(rig)) == ([], {WhyNot.ECHO: (1, "switch")})

    finish(check())


def test_it_runs_for_what_a_person_or_the_device_does_later_be_it_the_same_value():
    async def check() -> None:
        rig = await rigged(follower())
        await begun(rig, "on")
        await moved(rig, "on")
        for value in ("off", "on", "off"):
            rig.clock.jump(LATER)
            await moved(rig, value)
            assert [(run.depth, run.chain) for run in taken(rig)] == [(0, "")]

    finish(check())


def test_a_value_that_was_there_before_it_was_desired_is_no_echo_when_it_comes_back():
    async def check() -> None:
        rig = await rigged(follower())
        await moved(rig, "on")
        assert len(taken(rig)) == 1
        await begun(rig, "on")
        rig.clock.jump(LATER)
        for value in ("off", "on"):
            await moved(rig, value)
            assert [(run.depth, run.chain) for run in taken(rig)] == [(0, "")]

    finish(check())


def test_what_a_person_desires_instead_is_no_echo():
    async def check() -> None:
        rig = await rigged(follower())
        await begun(rig, "on")
        await rig.cluster.real.json_patch(
            DEVICES_V1BETA1,
            SWITCH,
            [{"op": "add", "path": "/spec/properties/0/desired/value", "value": "auto"}],
            field_manager="human",
        )
        await moved(rig, "auto")
        assert [(run.depth, run.chain) for run in taken(rig)] == [(0, "")]

    finish(check())


def test_an_echo_beside_another_change_is_a_run():
    async def check() -> None:
        rig = await rigged(follower())
        await begun(rig, "on")
        rig.cluster.real.report_twins(
            DEVICES_V1BETA1, SWITCH, {"state": reported("on"), "speed": reported("3")}
        )
        await rig.sync()
        assert len(taken(rig)) == 1

    finish(check())


def test_echo_that_comes_over_a_restart_or_before_it_is_none_afterwards_either():
    async def check() -> None:
        rig = await rigged(follower())
        await begun(rig, "on")
        during = Rig(before=rig)
        during.cluster.real.report_twins(DEVICES_V1BETA1, SWITCH, {"state": reported("on")})
        await during.sync()
        during.triggering.subscribe(follower())
        assert (taken(during), told(during)) == ([], {WhyNot.ECHO: (1, "switch")})
        after = Rig(before=during)
        await after.sync()
        after.triggering.subscribe(follower())
        assert (taken(after), told(after)) == ([], {})
        after.clock.jump(LATER)
        await moved(after, "off")
        await moved(after, "on")
        assert [(run.depth, run.cause) for run in taken(after)] == [(0, Cause.READ_CHANGE)]

    finish(check())


def test_one_that_may_loop_runs_for_its_echo():
    async def check() -> None:
        rig = await rigged(follower(may_loop=True))
        run = await begun(rig, "on")
        await moved(rig, "on")
        assert [(it.depth, it.chain) for it in taken(rig)] == [(0, run.key.run_id)]

    finish(check())


# Chains.


def test_a_run_that_another_scripts_write_set_off_follows_it():
    async def check() -> None:
        rig = await rigged(follower(), follower(OTHER, "u2"))
        first = await begun(rig, "on")
        await moved(rig, "on")
        [second] = taken(rig)
        assert (second.script, second.depth, second.chain) == (OTHER, 1, first.key.run_id)
        await wrote(rig, second, "off")
        await moved(rig, "off")
        [third] = taken(rig)
        assert (third.script, third.depth, third.chain) == (SCRIPT, 2, first.key.run_id)

    finish(check())


def test_two_scripts_that_set_each_other_off_end_at_the_depth_that_is_allowed():
    async def check() -> None:
        rig = await rigged(follower(), follower(OTHER, "u2"))
        runs = await circled(rig)
        assert [run.depth for run in runs] == list(range(9))
        assert told(rig, OTHER)[WhyNot.LOOP] == (1, "switch, set by thermostat")
        assert rig.metric("loops_broken_total") == 1
        rig.clock.jump(LATER)
        await moved(rig, "a person was here")
        assert [(run.depth, run.chain) for run in taken(rig)] == [(0, "")] * 2

    finish(check())


def test_a_chain_goes_on_over_a_restart_where_it_was():
    async def check() -> None:
        rig = await rigged(follower(), follower(OTHER, "u2"))
        first = await begun(rig, "on")
        await moved(rig, "on")
        [second] = taken(rig)
        await wrote(rig, second, "off")
        again = Rig(before=rig)
        await again.sync()
        for it in (follower(), follower(OTHER, "u2")):
            again.triggering.subscribe(it)
        await moved(again, "off")
        [third] = taken(again)
        assert (third.script, third.depth, third.chain) == (SCRIPT, 2, first.key.run_id)

    finish(check())


def test_a_device_that_answers_with_other_values_does_not_keep_a_chain_going():
    async def check() -> None:
        rig = await rigged(follower())
        run, depths = await begun(rig, "v0"), []
        for number in range(50):
            await moved(rig, f"nearly v{number}")
            runs = taken(rig)
            if not runs:
                break
            [run] = runs
            depths.append(run.depth)
            await wrote(rig, run, f"v{number + 1}")
        assert depths == list(range(1, 9))

    finish(check())


def test_one_that_may_loop_ends_at_the_number_of_runs_that_a_minute_may_have():
    async def check() -> None:
        rig = await rigged(follower(may_loop=True))
        assert len(await circled(rig)) == 50
        few = await rigged(follower(may_loop=True), limits=Limits(depth=8, runs=5))
        assert len(await circled(few)) == 6

    finish(check())


def test_what_waits_long_enough_is_no_chain():
    async def check() -> None:
        gate = Gate(debounce=SOON)
        rig = await rigged(follower(), follower(OTHER, "u2", gate=gate))
        await begun(rig, "on")
        await moved(rig, "on")
        rig.clock.jump(SOON)
        rig.triggering.look(OTHER)
        assert [(run.depth, run.chain) for run in taken(rig)] == [(0, "")]

    finish(check())


def test_what_a_gate_lets_through_at_once_is_one():
    async def check() -> None:
        gate = Gate((Condition(device="switch", property="state", equals="on"),))
        rig = await rigged(follower(), follower(OTHER, "u2", gate=gate))
        run = await begun(rig, "on")
        await moved(rig, "on")
        assert [(it.depth, it.chain) for it in taken(rig)] == [(1, run.key.run_id)]

    finish(check())


def test_a_condition_that_has_to_last_sees_what_the_script_itself_has_set():
    """A light that a rule turns on for a motion, and off after five minutes."""

    async def check() -> None:
        lasting = Condition(device="switch", property="state", equals="on", lasts=300.0)
        rig = await rigged(follower(gate=Gate((lasting,))))
        await begun(rig, "on")
        await moved(rig, "on")
        assert taken(rig) == []
        rig.clock.jump(300)
        rig.triggering.look(SCRIPT)
        assert [(run.depth, run.cause) for run in taken(rig)] == [(0, Cause.READ_CHANGE)]

    finish(check())


def test_conditions_that_last_for_less_than_that_are_a_chain_all_the_same():
    async def check() -> None:
        def gate(value: str) -> Gate:
            lasting = Condition(device="switch", property="state", equals=value, lasts=0.5)
            return Gate((lasting,))

        on, off = follower(gate=gate("on")), follower(OTHER, "u2", gate=gate("off"))
        rig = await rigged(on, off)
        await begun(rig, "on", script=OTHER)
        depths: list[int] = []
        for number in range(50):
            await moved(rig, "off" if number % 2 else "on")
            rig.clock.jump(0.5)
            for key in (SCRIPT, OTHER):
                rig.triggering.look(key)
            runs = taken(rig)
            if not runs:
                break
            depths += [run.depth for run in runs]
            await wrote(rig, runs[0], "on" if number % 2 else "off")
        assert depths == list(range(1, 9))
        assert rig.metric("loops_broken_total") == 1

    finish(check())


def test_an_echo_asks_no_gate_for_a_run():
    async def check() -> None:
        rig = await rigged(follower(gate=Gate(throttle=1.0)))
        await begun(rig, "on")
        await moved(rig, "on")
        rig.clock.jump(LATER)
        rig.triggering.look(SCRIPT)
        assert (taken(rig), told(rig)) == ([], {WhyNot.ECHO: (1, "switch")})

    finish(check())
