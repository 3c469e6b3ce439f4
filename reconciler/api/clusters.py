"""ClusterBinding: what a repository calls a cluster, bound to how it is reached; and its status."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from reconciler.api.meta import Model, Namespace, ObjectName, OpenModel
from reconciler.api.script import DATA_KEY


class KubeConfigSecretRef(Model):
    """A key of a Secret of the same namespace that holds a kubeconfig."""

    name: ObjectName
    key: Annotated[str, StringConstraints(pattern=DATA_KEY)] = Field(default="value")


class KubeConfig(Model):
    """With what a cluster is reached."""

    secret_ref: KubeConfigSecretRef = Field(
        description=(
            "The kubeconfig: https, with its authority, and a token or client certificate in it. "
            "What runs programs, reads files or skips the check of certificates is refused."
        )
    )


class ClusterBinding(Model):
    """A cluster by the name that the repository has for it."""

    name: Namespace
    kube_config: KubeConfig = Field(description="With what it is reached.")


class ClusterStatus(OpenModel):
    """What a cluster says of the ScriptRepository that it was given."""

    name: str
    ready: str = Field(default="Unknown", description="True, False or Unknown.")
    reason: str = ""
    message: str = ""
    revision: str = ""
    secret_ref: KubeConfigSecretRef | None = Field(
        default=None,
        description="With what it was handed out, to be taken away with when it is bound no more.",
    )
