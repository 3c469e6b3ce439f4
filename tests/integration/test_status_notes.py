"""Status as notes: real git shows, on each commit of the rules, what became of it on each cluster."""

from __future__ import annotations

from pathlib import Path

from tests.support.gitserver import Repository, git_daemon, wait_until
from tests.support.rulebook import HOUSE, documents, script
from tests.support.system import executor, serving, settings

TEAM = "team"
NOTES = "refs/notes/scriptops"


def shown(git: Repository, commit: str) -> list[str]:
    """The note of a commit; nothing where there is none."""
    listed = git.git("for-each-ref", NOTES) and git.git("notes", f"--ref={NOTES}", "list")
    if commit not in listed:
        return []
    return [it for it in git.git("notes", f"--ref={NOTES}", "show", commit).splitlines() if it]


def test_each_commit_is_noted_by_each_cluster_beside_what_people_note(
    tmp_path: Path, git: Repository
) -> None:
    broken = documents(script("late", version="9.0.0"))
    good = git.commit(HOUSE)

    def notes(commit: str, *lines: str) -> None:
        wait_until(lambda: len(shown(git, commit)) == len(lines), f"{len(lines)} notes", seconds=30)
        assert sorted(shown(git, commit)) == sorted(lines)

    with (
        git_daemon(git.path.parent) as url,
        serving(settings(tmp_path / "north", cluster_name="north")) as north,
        executor(north.grpc, tmp_path / "executor.log"),
    ):
        north.repository(TEAM, f"{url}/{git.path.name}", statusNotes=NOTES, interval="100ms")
        counts = "0 configured, 0 unchanged, 0 pruned, 0 skipped; 0 problems"
        applied = f"team/rules: Ready=True Applied; 5 created, {counts}"
        notes(good, f"scriptops north {applied}")
        git.git("notes", f"--ref={NOTES}", "append", "-m", "looked at by a person", good)

        with serving(settings(tmp_path / "south", cluster_name="south")) as south:
            south.repository(TEAM, f"{url}/{git.path.name}", statusNotes=NOTES, interval="100ms")
            notes(
                good,
                f"scriptops north {applied}",
                "looked at by a person",
                f"scriptops south {applied}",
            )
            bad = git.commit({"manifests/late.yaml": broken})
            why = (
                "team/rules: Ready=False ArtifactNotFound; 0 created, 0 configured, 5 unchanged, "
                "0 pruned, 0 skipped; 1 problem; manifests/late.yaml:13: /spec/manifest/version "
                'scripts/quiet/9.0.0.js is not in the repository; did you mean "1.0.0"?'
            )
            notes(bad, f"scriptops north {why}", f"scriptops south {why}")

        before = git.git("rev-parse", NOTES)
        mended = git.commit({"manifests/late.yaml": None})
        unchanged = "0 created, 0 configured, 5 unchanged, 0 pruned, 0 skipped; 0 problems"
        notes(mended, f"scriptops north team/rules: Ready=True Applied; {unchanged}")
        assert git.git("rev-parse", f"{NOTES}^") == before


def test_a_restart_notes_nothing_twice(tmp_path: Path, git: Repository) -> None:
    commit = git.commit(HOUSE)
    for _ in range(2):
        with serving(settings(tmp_path / "data")) as system:
            if not git.git("for-each-ref", NOTES):
                system.repository(TEAM, git.path, statusNotes=NOTES)
            wait_until(lambda: shown(git, commit), "it is noted", seconds=30)
    # What the second one had to say it has said when it ended.
    assert len(git.git("rev-list", NOTES).split()) == 1
