from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.pacing import Bucket, Rate


def test_a_burst_goes_at_once_and_what_follows_at_the_rate() -> None:
    bucket = Bucket(Rate(10, 3), now=0.0)
    assert [bucket.take(0.0) for _ in range(5)] == pytest.approx([0, 0, 0, 0.1, 0.2])


def test_a_pause_fills_the_bucket_and_never_beyond_its_brim() -> None:
    bucket = Bucket(Rate(10, 3), now=0.0)
    for _ in range(3):
        bucket.take(0.0)
    assert [bucket.take(100.0) for _ in range(4)] == pytest.approx([0, 0, 0, 0.1])


def test_a_place_given_back_is_the_next_ones() -> None:
    bucket = Bucket(Rate(10, 1), now=0.0)
    assert (bucket.take(0.0), bucket.take(0.0)) == pytest.approx((0, 0.1))
    bucket.give_back()
    assert bucket.take(0.0) == pytest.approx(0.1)


@given(
    pauses=st.lists(st.floats(0, 2), max_size=80),
    burst=st.integers(1, 10),
    per_second=st.floats(0.5, 50),
)
def test_no_stretch_of_time_has_more_than_burst_and_rate(
    pauses: list[float], burst: int, per_second: float
) -> None:
    now, done = 0.0, []
    bucket = Bucket(Rate(per_second, burst), now=now)
    for pause in pauses:
        now += pause
        done.append(now + bucket.take(now))
    for first, start in enumerate(done):
        for last, end in enumerate(done[first:], first):
            assert last - first + 1 <= burst + (end - start) * per_second + 1 + 1e-6
