"""Nobody reads what is logged any more: that is no reason to stop."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.gitserver import Repository
from tests.support.kube import free_port, wait_until
from tests.support.rulebook import QUIET, documents, script
from tests.support.system import ROOT, ask, is_ready

RULES = {
    "manifests/one.yaml": documents(script("one", policy={"webhook": True})),
    "scripts/quiet/1.0.0.js": QUIET,
}


def test_a_controller_and_an_executor_whose_logs_nobody_takes_work_on(
    tmp_path: Path, git: Repository
) -> None:
    git.commit(RULES)
    web, grpc = (f"127.0.0.1:{free_port()}" for _ in range(2))
    reader, writer = os.pipe()
    os.close(reader)
    up = subprocess.Popen(
        [
            *(sys.executable, "-m", "reconciler", "up", str(git.path)),
            *(f"--web={web}", f"--grpc={grpc}", "--mqtt=", f"--data={tmp_path / 'data'}"),
        ],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=writer,
    )
    os.close(writer)
    try:

        def runs() -> int:
            try:
                items = ask(f"http://{web}/api/v1alpha1/scripts")["items"]
            except OSError:
                return 0
            return int(items[0]["status"].get("runs", 0)) if items and is_ready(items[0]) else 0

        wait_until(lambda: runs() >= 1, what="it has run when it was deployed")
        ask(f"http://{web}/api/v1alpha1/webhook?namespace=default&name=one", method="POST")
        wait_until(lambda: runs() >= 2, what="it runs when it is asked to")
    finally:
        up.terminate()
        up.wait(30)
