"""`kubectl scriptops`: the command line where users of a cluster look for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.fakes.operations import FakeOperations
from tests.integration.web_server import listening


def kubectl(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["kubectl", *arguments],
        env={"PATH": programs, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_kubectl_finds_the_plugin_and_hands_over_what_follows(tmp_path: Path) -> None:
    script = {"kind": "Script", "metadata": {"namespace": "greenhouse", "name": "thermostat"}}
    with listening(FakeOperations(script_documents=[script])) as door:
        at = f"--controller=http://127.0.0.1:{door.port}"
        listed = kubectl("scriptops", "get", "scripts", "-n", "greenhouse", at, home=tmp_path)

    assert (listed.returncode, listed.stderr) == (0, "")
    assert "thermostat" in listed.stdout


def test_kubectl_lists_the_plugin_and_its_usage_says_kubectl(tmp_path: Path) -> None:
    plugins = kubectl("plugin", "list", home=tmp_path)
    assert str(Path(sys.executable).with_name("kubectl-scriptops")) in plugins.stdout
    usage = kubectl("scriptops", "get", "--help", home=tmp_path)
    assert (usage.returncode, usage.stderr) == (0, "")
    assert "Usage: kubectl scriptops get" in usage.stdout
