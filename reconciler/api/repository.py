"""RepositoryFile: `scriptops.yaml`, the one file by which a repository says something of itself."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from reconciler.api.meta import Model, Namespace


class RepositoryFile(Model):
    """What a repository may decide: which of its own files are not manifests or scripts, and what
    its clusters are called.

    Nothing that chooses credentials, refs, hosts or namespaces belongs here. Which cluster has
    which name is said where its controller is started.
    """

    ignore: list[Annotated[str, StringConstraints(min_length=1, max_length=256)]] = Field(
        default_factory=list,
        max_length=100,
        description=(
            "Files and folders that are passed over, as paths from the folder that holds "
            "scriptops.yaml. `*` stands for any characters, `/` included, `?` for one."
        ),
    )
    clusters: list[Namespace] = Field(
        default_factory=list,
        max_length=1_000,
        description=(
            "Clusters that it is deployed to, and to no others. Manifests in `clusters/<name>/` "
            "are deployed to that one alone, in place of objects of the same name in `manifests/`. "
            "Absent: it is deployed wherever a ScriptRepository names it, without such folders."
        ),
    )
