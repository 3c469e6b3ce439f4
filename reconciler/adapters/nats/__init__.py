"""NATS JetStream: what replicas of a controller keep together, in streams and key-value buckets."""

from reconciler.adapters.nats.connection import Nats
from reconciler.adapters.nats.journal import JetStreamJournal
from reconciler.adapters.nats.state import JetStreamEvaluations, JetStreamStates

__all__ = ["JetStreamEvaluations", "JetStreamJournal", "JetStreamStates", "Nats"]
