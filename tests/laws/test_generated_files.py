from __future__ import annotations

from pathlib import Path

import pytest

from reconciler import schemagen


def test_generated_files_are_current() -> None:
    assert schemagen.stale(schemagen.ROOT) == ()


def test_no_file_stands_among_the_generated_ones_that_nobody_generates() -> None:
    generated = set(schemagen.files())
    folders = (Path("schemas"), Path("deploy/crds"), Path("repo-template/.schemas"))
    present = {
        path.relative_to(schemagen.ROOT)
        for folder in folders
        for path in (schemagen.ROOT / folder).rglob("*")
        if path.is_file()
    }
    assert present == {path for path in generated if not path.is_relative_to("docs")}


def test_the_check_names_the_file_that_is_stale_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert schemagen.main([], root=tmp_path) == 0
    assert schemagen.main(["--check"], root=tmp_path) == 0
    edited = tmp_path / "deploy/crds/scripts.hit.edu.cn.yaml"
    edited.write_text("edited by hand", encoding="utf-8")
    assert schemagen.main(["--check"], root=tmp_path) == 1
    assert capsys.readouterr().err == (
        "deploy/crds/scripts.hit.edu.cn.yaml is not current: run python -m reconciler.schemagen\n"
    )
    assert edited.read_text(encoding="utf-8") == "edited by hand"
