"""What deploy/argocd has twice, written from the one place where it is kept.

python -m tests.support.argocd

The ConfigMap holds the Lua of resource_customizations; health_test.yaml what that Lua says of the
testdata, to be read before it is committed. Testdata are written by tests/integration/test_argocd.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.support import lua
from tests.support.kube import DEPLOY

FOLDER = DEPLOY / "argocd"
CUSTOMIZATIONS = FOLDER / "resource_customizations" / "hit.edu.cn"
KINDS = ["Script", "ScriptRepository"]
# What changes with every run, or with every commit that concerns nobody.
IGNORED = {
    "Script": ["/status/lastRun", "/status/runs", "/status/failures"],
    "ScriptRepository": [
        "/status/revision",
        "/status/statusCommit",
        "/status/lastHandledReconcileAt",
    ],
}
HEAD = """\
# What Argo CD has to know of our kinds. A patch of its own ConfigMap, not a replacement for it:
#
#     kubectl patch configmap argocd-cm -n argocd --patch-file deploy/argocd/argocd-cm.yaml
#
# Written by python -m tests.support.argocd from resource_customizations; change that.
"""


def health(live: Any) -> dict[str, str]:
    """What Argo CD makes of an object."""
    told = lua.run((CUSTOMIZATIONS / live["kind"] / "health.lua").read_text(), live)
    assert isinstance(told, dict)
    return {name: told[name] for name in ("status", "message")}


def config_map() -> dict[str, str]:
    """The data of argocd-cm that is ours."""
    data: dict[str, str] = {}
    for kind in KINDS:
        folder, place = CUSTOMIZATIONS / kind, f"hit.edu.cn_{kind}"
        actions = {
            "discovery.lua": _Block((folder / "actions" / "discovery.lua").read_text()),
            "definitions": [
                {"name": path.parent.name, "action.lua": _Block(path.read_text())}
                for path in sorted((folder / "actions").glob("*/action.lua"))
            ],
        }
        ignored = {"jsonPointers": IGNORED[kind]}
        data |= {
            f"resource.customizations.health.{place}": (folder / "health.lua").read_text(),
            f"resource.customizations.actions.{place}": _dump(actions),
            f"resource.customizations.ignoreResourceUpdates.{place}": _dump(ignored),
        }
    return data


def write() -> None:
    metadata = {"name": "argocd-cm", "labels": {"app.kubernetes.io/part-of": "argocd"}}
    data = {name: _Block(text) for name, text in config_map().items()}
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
    (FOLDER / "argocd-cm.yaml").write_text(HEAD + _dump(document))
    for kind in KINDS:
        tests = [
            {"healthStatus": health(yaml.safe_load(path.read_text())), "inputPath": _name(path)}
            for path in sorted((CUSTOMIZATIONS / kind / "testdata").glob("*.yaml"))
        ]
        (CUSTOMIZATIONS / kind / "health_test.yaml").write_text(_dump({"tests": tests}))


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


class _Block(str):
    """Text of several lines, shown as such."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    def block(self, value: str) -> yaml.Node:
        return self.represent_scalar("tag:yaml.org,2002:str", str(value), style="|")


_Dumper.add_representer(_Block, _Dumper.block)


def _dump(document: object) -> str:
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=1_000)
    return text


if __name__ == "__main__":
    write()
