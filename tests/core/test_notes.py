"""What is noted on a commit, and that nobody else's words are touched by it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.api.scriptrepository import Counts
from reconciler.core import conditions, notes
from reconciler.core.objects import ObjectKey

OWNER = notes.owner("edge-1", ObjectKey("team", "rules"))
OTHER = notes.owner("edge-10", ObjectKey("team", "rules"))


@pytest.mark.parametrize(
    ("note", "after"),
    [
        pytest.param(b"", b"scriptops edge-1 team/rules: new\n", id="no note"),
        pytest.param(
            b"scriptops edge-1 team/rules: old\n",
            b"scriptops edge-1 team/rules: new\n",
            id="an older one of ours",
        ),
        pytest.param(
            b"Reviewed-by: somebody",
            b"Reviewed-by: somebody\nscriptops edge-1 team/rules: new\n",
            id="somebody's, whose line does not end",
        ),
        pytest.param(
            b"a\r\n\n\xff\0\nscriptops edge-1 team/rules: old\nscriptops edge-10 team/rules: x\n\n",
            b"a\r\n\n\xff\0\nscriptops edge-1 team/rules: new\nscriptops edge-10 team/rules: x\n\n",
            id="in its place, and whatever is around it",
        ),
        pytest.param(
            b"scriptops edge-1 team/rules: old\nscriptops edge-1 team/rules: older\nend\n",
            b"scriptops edge-1 team/rules: new\nend\n",
            id="two of ours, as git merges them",
        ),
    ],
)
def test_our_line_is_put_in_and_all_others_stay(note, after):
    assert notes.with_line(note, OWNER, "new") == after


@given(st.binary(), st.text("ab", max_size=3), st.text("ab", max_size=3))
def test_two_clusters_never_lose_a_word_of_each_other_or_of_people(note, ours, theirs):
    one = notes.with_line(notes.with_line(note, OWNER, ours), OTHER, theirs)
    assert one.startswith(note)
    assert notes.with_line(notes.with_line(one, OTHER, theirs), OWNER, ours) == one
    again = notes.with_line(one, OWNER, "changed")
    assert f"{OTHER}: {theirs}\n".encode() in again
    assert again.startswith(note)


def test_a_summary_is_one_line_with_what_failed():
    counts = Counts(created=3, configured=1, unchanged=40, skipped=2)
    assert notes.summary(conditions.ready("Applied", "applied main@sha1:1"), counts, 0) == (
        "Ready=True Applied; 3 created, 1 configured, 40 unchanged, 0 pruned, 2 skipped; 0 problems"
    )
    bad = conditions.stalled("ArtifactNotFound", "manifests/a.yaml:3: x is\nnot there")
    assert notes.summary(bad, None, 1) == (
        "Ready=False ArtifactNotFound; 1 problem; manifests/a.yaml:3: x is not there"
    )
