"""A cluster of one process: documents in memory, made durable in SQLite, watched as elsewhere.

It promises what the `Cluster` port promises, for one namespace-less operator on one machine:
namespaces need not be made, nobody is refused for who they are, and kinds are those in `SERVED`.
"""

from reconciler.adapters.embedded.cluster import EmbeddedCluster

__all__ = ["EmbeddedCluster"]
