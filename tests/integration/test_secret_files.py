"""`scriptops up` with Secrets from a folder: a private URL, and push webhooks for it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.errors import Stalled
from reconciler.main import secretfiles
from tests.support import signing
from tests.support.gitserver import Repository, git_http
from tests.support.rulebook import HOUSE, documents, script
from tests.support.system import ROOT, Process, ask

LOGIN = ("robot", "pässword")


def secrets(folder: Path) -> Path:
    for name, value in {
        "git/username": LOGIN[0],
        "git/password": LOGIN[1],
        "push/token": "hush\n",
        "..data/hidden": "of a mount",
        "push/.hidden": "too",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value)
    (folder / "README").write_text("no Secret")
    return folder


def test_folders_are_secrets_and_files_their_keys(tmp_path: Path) -> None:
    found = secretfiles.documents(secrets(tmp_path), "house")
    assert found == [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "git", "namespace": "house"},
            "data": {"password": "cMOkc3N3b3Jk", "username": "cm9ib3Q="},
        },
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "push", "namespace": "house"},
            "data": {"token": "aHVzaAo="},
        },
    ]


def test_scripts_are_given_what_was_said_to_be_for_them_and_nothing_else(tmp_path: Path) -> None:
    folder = secrets(tmp_path)
    (folder / "api").mkdir()
    (folder / "api" / ".for-scripts").touch()
    labels = {
        it["metadata"]["name"]: it["metadata"].get("labels")
        for it in secretfiles.documents(folder, "house")
    }
    assert labels == {"api": {"scriptops.hit.edu.cn/env": "true"}, "git": None, "push": None}


def test_a_folder_that_is_no_name_says_so(tmp_path: Path) -> None:
    (tmp_path / "My Secret").mkdir()
    with pytest.raises(Stalled, match="My Secret cannot be the name of a Secret"):
        secretfiles.documents(tmp_path, "house")


def test_a_private_url_is_deployed_and_a_webhook_deploys_its_next_commit(tmp_path: Path) -> None:
    git = Repository(tmp_path / "served" / "rules.git", "--bare")
    git.commit(HOUSE)
    with git_http(tmp_path / "served", login=LOGIN) as base:
        up = Process(
            (
                *("reconciler", "up", f"{base}/rules.git", "--interval=1h"),
                *("--web=127.0.0.1:0", "--grpc=127.0.0.1:0", "--mqtt=", "--log-level=debug"),
                *(f"--data={tmp_path / 'data'}", f"--secrets={secrets(tmp_path / 'secrets')}"),
            ),
            tmp_path / "up.log",
            {"HOME": str(tmp_path), "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
        )
        up.start()
        try:
            up.says("2 artifacts published")
            web = re.findall(r"http://127\.0\.0\.1:\d+(?=/\s)", up.output)[0]
            after = git.commit({"manifests/more.yaml": documents(script("more"))})
            body = json.dumps({"ref": "main", "after": after}).encode()
            signature = signing.hexadecimal(body, b"hush")
            sent = subprocess.run(
                [
                    *("curl", "--silent", "--show-error", "--data-binary", "@-"),
                    *("--header", f"X-Signature: sha256={signature}"),
                    *("--header", "Content-Type: application/json"),
                    f"{web}/api/v1alpha1/repositories/default/rules/push",
                ],
                input=body,
                capture_output=True,
                check=True,
            )
            assert json.loads(sent.stdout) == {"result": "queued"}
            up.says(f"@sha1:{after[:10]}: 1 created")
            names = {it["metadata"]["name"] for it in ask(f"{web}/api/v1alpha1/scripts")["items"]}
            assert names == {"relay", "more"}
        finally:
            if up.code is None:
                up.stop()
    assert LOGIN[1] not in up.output
    assert "hush" not in up.output


def test_a_folder_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "reconciler", "up", str(tmp_path), "--secrets=/nowhere/at/all"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 2
    assert "/nowhere/at/all" in ended.stderr
