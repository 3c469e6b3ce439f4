"""A Kubernetes API server as the `Cluster` port: JSON documents over one pooled connection.

Credentials, TLS and proxies are the official client's business, so that whatever kubectl can reach
is reached here; its model classes and its watch are not used. Refuses: retries and caches, which
belong to the callers.
"""

from reconciler.adapters.kube.cluster import KubeCluster
from reconciler.adapters.kube.credentials import connect
from reconciler.adapters.kube.remote import RemoteClusters

__all__ = ["KubeCluster", "RemoteClusters", "connect"]
