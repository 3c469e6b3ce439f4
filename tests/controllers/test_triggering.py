"""From what happened to a wish for a run."""

from __future__ import annotations

import pytest

from reconciler.core.objects import DEVICES_V1BETA1, ObjectKey
from reconciler.core.runqueue import PER_SCRIPT
from reconciler.core.runs import Cause, Run
from reconciler.errors import ObjectNotFound, Waiting
from reconciler.ports.state import Evaluation
from tests.controllers.runpath import (
    DHT11,
    DIGEST,
    SCRIPT,
    Rig,
    device,
    finish,
    reported,
    subscription,
)
from tests.fakes.evaluations import FakeEvaluations

DEPLOYED, READ_CHANGE = Cause.DEPLOYED, Cause.READ_CHANGE


def waiting(rig: Rig) -> list[tuple[Cause, set[str]]]:
    return [(run.cause, set(run.devices)) for run in rig.queue]


def dispatch(rig: Rig) -> list[Run]:
    """Hand out all that waits, and let it end."""
    runs = [run for group in rig.queue.take(10_000) for run in group]
    for run in runs:
        rig.triggering.dispatched(run)
        rig.queue.done(run.script)
    return runs


async def subscribed(**parts: object) -> Rig:
    """A Script that has had its first run, and a sensor that reported 20."""
    rig = Rig()
    await rig.devices()
    await rig.report("20")
    rig.triggering.subscribe(subscription(**parts))  # type: ignore[arg-type]  # as given by tests
    dispatch(rig)
    return rig


# Values.


def test_new_script_runs_once_against_the_present_state():
    async def check() -> None:
        rig = Rig()
        await rig.devices()
        await rig.report("20")
        rig.triggering.subscribe(subscription())
        rig.triggering.subscribe(subscription())
        assert waiting(rig) == [(DEPLOYED, set())]
        dispatch(rig)
        await rig.report("20")
        assert waiting(rig) == []
        assert rig.evaluations.rows == {
            "u1": Evaluation(1, DIGEST, {"dht11": {"temperature": "20"}})
        }

    finish(check())


def test_another_value_is_a_run_and_the_same_value_is_none_whatever_its_time():
    async def check() -> None:
        rig = await subscribed()
        rig.clock.jump(60)
        await rig.report("20")
        assert waiting(rig) == []
        await rig.report("21")
        assert waiting(rig) == [(READ_CHANGE, {"dht11"})]
        dispatch(rig)
        await rig.report("21")
        assert waiting(rig) == []

    finish(check())


def test_value_that_becomes_unknown_is_no_change_and_neither_is_its_return():
    async def check() -> None:
        rig = await subscribed()
        rig.cluster.real.report_twins(DEVICES_V1BETA1, DHT11, {"temperature": reported("", "")})
        await rig.sync()
        assert rig.world.devices.get(DHT11).twin("temperature").reported is None
        await rig.report("20")
        assert waiting(rig) == []

    finish(check())


def test_device_that_appears_later_and_then_reports_is_a_change():
    async def check() -> None:
        rig = Rig()
        rig.triggering.subscribe(subscription())
        dispatch(rig)
        await rig.create(DEVICES_V1BETA1, device("dht11", "sensor", temperature=None))
        await rig.sync()
        assert waiting(rig) == []
        await rig.report("20")
        assert waiting(rig) == [(READ_CHANGE, {"dht11"})]

    finish(check())


def test_device_that_was_deleted_and_made_anew_with_the_same_value_is_no_change():
    async def check() -> None:
        rig = await subscribed()
        await rig.delete(DEVICES_V1BETA1, DHT11)
        await rig.sync()
        await rig.create(DEVICES_V1BETA1, device("dht11", "sensor", temperature=None))
        await rig.report("20")
        assert waiting(rig) == []
        await rig.report("22")
        assert waiting(rig) == [(READ_CHANGE, {"dht11"})]

    finish(check())


def test_changes_while_a_run_waits_are_one_run():
    async def check() -> None:
        rig = await subscribed()
        for value in ("21", "22", "23"):
            await rig.report(value)
        assert waiting(rig) == [(READ_CHANGE, {"dht11"})]

    finish(check())


def test_change_while_a_run_is_in_flight_is_exactly_one_more_run():
    async def check() -> None:
        rig = await subscribed()
        await rig.report("21")
        [[first]] = rig.queue.take(1)
        rig.triggering.dispatched(first)
        await rig.report("22")
        await rig.report("23")
        rig.queue.done(SCRIPT)
        assert len(dispatch(rig)) == 1
        await rig.report("23")
        assert waiting(rig) == []

    finish(check())


def test_value_that_went_and_came_back_while_a_run_waited_is_no_run_after_it():
    async def check() -> None:
        rig = await subscribed()
        await rig.report("21")
        await rig.report("20")
        assert len(dispatch(rig)) == 1
        await rig.report("20")
        assert waiting(rig) == []

    finish(check())


def test_script_without_read_change_does_not_run_by_changes():
    async def check() -> None:
        rig = await subscribed(read_change=False)
        await rig.report("21")
        assert waiting(rig) == []

    finish(check())


def test_device_that_no_script_reads_leaves_no_trace():
    async def check() -> None:
        rig = await subscribed()
        puts = rig.evaluations.puts
        await rig.report("on", name="state", key=ObjectKey("default", "switch"))
        assert (waiting(rig), rig.evaluations.puts) == ([], puts)

    finish(check())


# Deployments.


@pytest.mark.parametrize(
    "newer",
    [
        pytest.param(subscription(generation=2), id="another spec"),
        pytest.param(subscription(digest="sha256:other"), id="other bytes"),
    ],
)
def test_changed_script_runs_once(newer):
    async def check() -> None:
        rig = await subscribed()
        rig.triggering.subscribe(newer)
        rig.triggering.subscribe(newer)
        assert waiting(rig) == [(DEPLOYED, set())]
        dispatch(rig)
        assert rig.evaluations.rows["u1"].generation == newer.generation
        assert rig.evaluations.rows["u1"].digest == newer.digest

    finish(check())


def test_script_that_changes_again_before_its_first_run_runs_once():
    async def check() -> None:
        rig = Rig()
        for generation in (1, 2, 3):
            rig.triggering.subscribe(subscription(generation=generation))
        assert waiting(rig) == [(DEPLOYED, set())]

    finish(check())


def test_run_on_deploy_false_neither_runs_nor_forgets():
    async def check() -> None:
        rig = Rig()
        await rig.devices()
        await rig.report("20")
        rig.triggering.subscribe(subscription(run_on_deploy=False))
        assert waiting(rig) == []
        await rig.report("20")
        assert waiting(rig) == []
        await rig.report("21")
        assert waiting(rig) == [(READ_CHANGE, {"dht11"})]

    finish(check())


def test_change_that_fell_into_a_new_spec_is_run_even_without_run_on_deploy():
    async def check() -> None:
        rig = await subscribed(run_on_deploy=False)
        rig.triggering.unsubscribe(SCRIPT)
        await rig.report("21")
        newer = subscription(
            generation=2, run_on_deploy=False, reads=frozenset({"dht11", "switch"})
        )
        rig.triggering.subscribe(newer)
        assert waiting(rig) == [(READ_CHANGE, {"dht11"})]

    finish(check())


def test_adopted_script_that_is_not_known_here_counts_as_run():
    async def check() -> None:
        rig = Rig()
        await rig.devices()
        await rig.report("20")
        rig.triggering.subscribe(subscription(), adopt=True)
        assert waiting(rig) == []
        await rig.report("21")
        assert waiting(rig) == [(READ_CHANGE, {"dht11"})]

    finish(check())


# Restarts.


def restarted(rig: Rig) -> Rig:
    return Rig(before=rig)


def test_restart_with_the_same_values_starts_no_run_of_a_thousand_scripts():
    async def check() -> None:
        rig = Rig()
        await rig.devices()
        await rig.report("20")
        scripts = [
            subscription(ObjectKey("default", f"script-{n}"), uid=f"u{n}") for n in range(1000)
        ]
        for it in scripts:
            rig.triggering.subscribe(it)
        assert len(dispatch(rig)) == 1000
        again = restarted(rig)
        await again.sync()
        for it in scripts:
            again.triggering.subscribe(it, adopt=True)
        await again.report("20")
        assert waiting(again) == []

    finish(check())


def test_change_while_away_is_one_run_of_each_script_after_the_restart():
    async def check() -> None:
        rig = Rig()
        await rig.devices()
        await rig.report("20")
        scripts = [subscription(ObjectKey("default", f"s{n}"), uid=f"u{n}") for n in range(20)]
        for it in scripts:
            rig.triggering.subscribe(it)
        dispatch(rig)
        rig.cluster.real.report_twins(DEVICES_V1BETA1, DHT11, {"temperature": reported("25")})
        again = restarted(rig)
        await again.sync()
        for it in scripts:
            again.triggering.subscribe(it, adopt=True)
        assert waiting(again) == [(READ_CHANGE, {"dht11"})] * 20
        dispatch(again)
        await again.report("25")
        assert waiting(again) == []

    finish(check())


def test_wish_that_was_not_dispatched_before_a_restart_is_made_again():
    async def check() -> None:
        rig = await subscribed()
        await rig.report("21")
        again = restarted(rig)
        await again.sync()
        again.triggering.subscribe(subscription(), adopt=True)
        assert waiting(again) == [(READ_CHANGE, {"dht11"})]

    finish(check())


def test_first_run_that_was_not_dispatched_before_a_restart_is_still_owed():
    async def check() -> None:
        rig = Rig()
        rig.triggering.subscribe(subscription())
        again = restarted(rig)
        again.triggering.subscribe(subscription(), adopt=True)
        assert waiting(again) == [(DEPLOYED, set())]

    finish(check())


def test_scripts_that_went_while_nobody_looked_are_forgotten():
    evaluations = FakeEvaluations()
    for uid in ("u1", "gone"):
        evaluations.put(uid, Evaluation(1, DIGEST, {}))
    rig = Rig()
    rig.evaluations.rows.update(evaluations.rows)
    again = restarted(rig)
    again.triggering.keep_only({"u1"})
    assert again.evaluations.rows.keys() == {"u1"}


# Going away.


def test_unsubscribed_script_has_no_runs_and_catches_up_when_it_returns():
    async def check() -> None:
        rig = await subscribed()
        await rig.report("21")
        rig.triggering.unsubscribe(SCRIPT)
        assert waiting(rig) == []
        await rig.report("22")
        assert waiting(rig) == []
        rig.triggering.subscribe(subscription())
        assert waiting(rig) == [(READ_CHANGE, {"dht11"})]

    finish(check())


def test_unsubscribed_script_whose_devices_did_not_change_does_not_run_when_it_returns():
    async def check() -> None:
        rig = await subscribed()
        rig.triggering.unsubscribe(SCRIPT)
        rig.triggering.subscribe(subscription())
        assert waiting(rig) == []

    finish(check())


def test_script_that_was_deleted_and_made_anew_is_a_new_script():
    async def check() -> None:
        rig = await subscribed()
        await rig.report("21")
        rig.triggering.forget(SCRIPT, "u1")
        assert (waiting(rig), rig.evaluations.rows) == ([], {})
        rig.triggering.subscribe(subscription(uid="u2"))
        [run] = dispatch(rig)
        assert (run.uid, run.cause, rig.evaluations.rows.keys()) == ("u2", DEPLOYED, {"u2"})

    finish(check())


def test_run_of_an_earlier_object_does_not_count_as_one_of_the_present():
    async def check() -> None:
        rig = await subscribed()
        await rig.report("21")
        [[old]] = rig.queue.take(1)
        rig.triggering.forget(SCRIPT, "u1")
        rig.triggering.subscribe(subscription(uid="u2"))
        rig.triggering.dispatched(old)
        assert rig.evaluations.rows["u2"] == Evaluation(0, "", {})

    finish(check())


# Requests.


def test_request_is_a_run_of_its_own_with_its_event():
    async def check() -> None:
        rig = await subscribed()
        ids = [rig.triggering.request(SCRIPT, Cause.WEBHOOK, b'{"n": 1}') for _ in range(2)]
        runs = list(rig.queue)
        assert [run.key.run_id for run in runs] == ids
        assert {(run.cause, run.event, run.uid) for run in runs} == {
            (Cause.WEBHOOK, b'{"n": 1}', "u1")
        }

    finish(check())


def test_request_for_a_script_that_cannot_run_is_refused():
    async def check() -> None:
        with pytest.raises(ObjectNotFound, match="default/thermostat is not ready to run"):
            Rig().triggering.request(SCRIPT, Cause.MANUAL, b"")

    finish(check())


def test_flood_of_requests_is_refused_and_counted_and_hides_no_change():
    async def check() -> None:
        rig = await subscribed()
        for _ in range(PER_SCRIPT):
            rig.triggering.request(SCRIPT, Cause.WEBHOOK, b"{}")
        with pytest.raises(Waiting, match="too many runs") as caught:
            rig.triggering.request(SCRIPT, Cause.WEBHOOK, b"{}")
        assert caught.value.reason == "QueueFull"
        assert rig.metric("runs_refused_total", cause="Webhook") == 1
        await rig.report("21")
        rig.triggering.subscribe(subscription(generation=2))
        assert waiting(rig)[-2:] == [(READ_CHANGE, {"dht11"}), (DEPLOYED, set())]

    finish(check())
