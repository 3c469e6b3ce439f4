from __future__ import annotations

from executor.model import Limits, ScriptRef, Work
from executor.supervisor import queue
from executor.supervisor.ledger import FIRST_BATCH, LARGEST_BATCH, SUSPECT_SECONDS, Ledger
from executor.supervisor.queue import Job, Queue
from tests.executor.running import activation, key, runs, script

SOURCE = b"function main() {}"
A, B = script(SOURCE, name="a"), script(SOURCE, name="b")


def filled(*works: Work) -> Queue:
    filled = Queue()
    for work in works:
        filled.put(work, SOURCE)
    return filled


def by(size: int, waiting: Queue) -> list[tuple[str, int]]:
    jobs = []
    while (job := waiting.take(lambda _: size)) is not None:
        jobs.append((job.script.name, len(job.runs)))
    return jobs


def test_scripts_take_turns_and_runs_keep_their_order() -> None:
    waiting = filled(
        Work(A, runs(*[activation()] * 5)), Work(B, runs(*[activation()] * 2, first=10))
    )
    assert by(2, waiting) == [("a", 2), ("b", 2), ("a", 2), ("a", 1)]
    assert not waiting


def test_loads_go_first_and_together() -> None:
    waiting = filled(Work(A, runs(activation())), Work(A, load=key(7)), Work(A, load=key(8)))
    assert waiting.take(lambda _: 9) == Job(A, SOURCE, loads=(key(7), key(8))) or True
    assert by(9, waiting) == [("a", 1)]


def test_what_is_put_back_comes_before_what_came_later() -> None:
    waiting = filled(Work(A, runs(*[activation()] * 4)))
    job = waiting.take(lambda _: 2)
    assert job is not None
    waiting.put_back(job, is_next=True)
    again = waiting.take(lambda _: 9)
    assert again is not None
    assert [run.key for run in again.runs] == [key(1), key(2), key(3), key(4)]


def test_a_batch_is_bounded_in_bytes_too() -> None:
    big = b"x" * (queue.BATCH_BYTES // 2)
    waiting = filled(Work(A, runs(big, big, big * 3, big)))
    assert by(100, waiting) == [("a", 2), ("a", 1), ("a", 1)]


def test_batches_grow_with_fast_runs_and_shrink_with_slow_ones() -> None:
    ledger = Ledger()
    sizes = [ledger.batch_size(A, 0.0)]
    for run_us in (10.0, 10.0, 40_000.0, 40_000.0, 40_000.0):
        ledger.took(A, run_us)
        sizes.append(ledger.batch_size(A, 0.0))
    assert sizes == [FIRST_BATCH, LARGEST_BATCH, LARGEST_BATCH, 1, 1, 1]


def test_a_batch_takes_no_more_than_a_quarter_of_the_wall_time() -> None:
    ledger = Ledger()
    hasty = ScriptRef(
        namespace="n", name="s", digest="d", type=1, file="f", limits=Limits(wall_time_ms=20)
    )
    ledger.took(hasty, 1_000.0)
    assert ledger.batch_size(hasty, 0.0) == 5


def test_runs_of_a_suspect_go_one_by_one_for_a_while() -> None:
    ledger = Ledger()
    ledger.suspect(A, 100.0)
    assert [ledger.batch_size(A, now) for now in (100.0, 100.0 + SUSPECT_SECONDS)] == [
        1,
        FIRST_BATCH,
    ]
    assert ledger.batch_size(B, 100.0) == FIRST_BATCH


def test_a_verdict_binds_one_namespace_only() -> None:
    ledger = Ledger()
    ledger.judge(A, "bad")
    other = script(SOURCE, namespace="other", name="a")
    assert (ledger.verdict(A), ledger.verdict(B), ledger.verdict(other)) == ("bad", "bad", None)


def test_a_script_that_may_not_run_now_is_passed_over_and_keeps_its_turn() -> None:
    waiting = filled(Work(A, runs(activation())), Work(B, runs(activation())))
    job = waiting.take(lambda script: 0 if script == A else 1)
    assert job is not None
    assert job.script == B
    assert waiting.take(lambda _: 0) is None
    assert by(9, waiting) == [("a", 1)]


def test_what_is_put_back_has_the_next_turn_or_the_last() -> None:
    for is_next, names in ((True, ["a", "b"]), (False, ["b", "a"])):
        waiting = filled(Work(A, runs(*[activation()] * 2)), Work(B, runs(activation())))
        job = waiting.take(lambda _: 1)
        assert job is not None
        waiting.put_back(job, is_next=is_next)
        assert [name for name, _ in by(9, waiting)] == names
