"""What is counted; the loops count here, `/metrics` shows it."""

from __future__ import annotations

from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from reconciler.core.runs import Cause, Outcome

LOOPS = (
    "Script",
    "ScriptStatus",
    "ScriptRepository",
    "CommitStatus",
    "Notification",
    "StatusNotes",
    "Drift",
    "DriftStatus",
)
PATCHED = ("Script", "ScriptRepository")
KINDS = ("Script", "ScriptRepository", "Device", "DeviceModel")
DRIFTING = ("Script", "Device", "DeviceModel")
RESULTS = ("success", "requeue", "waiting", "stalled", "error")
WRITES = ("written", "unchanged", "refused", "outranked")
COMMITS = ("pushed", "unchanged", "refused", "error")
NOTIFIED = ("sent", "dropped")
STATUSES = ("pending", "success", "failure", "throttled", "error")
# What is best effort, or newest wins, and has a bound on what waits.
DROPPED = ("event", "note", "recording", "shadow")
MQTT = ("received", "published", "dropped", "refused", "taken", "rejected", "unknown")
HEARD = ("queued", "current", "duplicate", "ignored", "ping", "refused")
# A run takes microseconds to its limit, by default 1 s.
RUN_BUCKETS = (0.00001, 0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
# A change is answered in milliseconds when all is well; beyond 10 s something is stuck.
LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
# Devices answer in milliseconds or when they wake up; up to the longest that a run may wait.
WAIT_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 300.0, 600.0)
# Up to the default timeout of a git operation.
FETCH_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0)


class Metrics:
    """All label sets of closed vocabularies exist from the start, at zero.

    Names of objects are never labels: their number has no bound.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, **labels: tuple[str, ...]) -> Counter:
            made = Counter(name, text, tuple(labels), namespace="scriptops", registry=registry)
            for values in product(*labels.values()) if labels else ():
                made.labels(*values)
            return made

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, namespace="scriptops", registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, namespace="scriptops", registry=registry, buckets=buckets)

        self.reconcile_total = counter(
            "reconcile_total", "Reconciles finished.", kind=LOOPS, result=RESULTS
        )
        self.runs_total = counter(
            "runs_total", "Runs finished.", outcome=tuple(Outcome), cause=tuple(Cause)
        )
        self.runs_refused_total = counter(
            "runs_refused_total", "Runs not taken in because too many waited.", cause=tuple(Cause)
        )
        self.runs_given_up_total = counter(
            "runs_given_up_total", "Runs that have not succeeded at any of their starts."
        )
        self.loops_broken_total = counter(
            "loops_broken_total", "Runs that were not started because of the chain they were in."
        )
        self.dropped_total = counter(
            "dropped_total", "Things not kept because too much of them waited.", what=DROPPED
        )
        self.ticks_total = counter(
            "ticks_total", "Times of schedules that came.", result=("due", "missed")
        )
        self.stale_results_total = counter(
            "stale_results_total", "Results dropped because their run was not in flight."
        )
        self.run_queue_depth = gauge("run_queue_depth", "Runs that wait for an executor.")
        self.run_seconds = histogram("run_seconds", "Time of a run in its engine.", RUN_BUCKETS)
        self.effect_latency_seconds = histogram(
            "effect_latency_seconds",
            "From a device change seen to the desired value patched.",
            LATENCY_BUCKETS,
        )
        self.desired_writes_total = counter(
            "desired_writes_total", "Desired values that runs committed.", result=WRITES
        )
        self.commits_total = counter(
            "commits_total",
            "Commits that runs waited for.",
            qos=("1", "2"),
            result=("reached", "not_converged", "refused", "failed"),
        )
        self.commit_seconds = histogram(
            "commit_seconds", "From a commit written to where its run wants it.", WAIT_BUCKETS
        )
        self.redrives_total = counter(
            "redrives_total", "Desired values written again because they were not reached."
        )
        self.runs_paused = gauge("runs_paused", "Runs that wait for what they committed.")
        self.status_patches_total = counter(
            "status_patches_total", "Status patches sent to the cluster.", kind=PATCHED
        )
        self.status_commits_total = counter(
            "status_commits_total", "Status commits tried.", result=COMMITS
        )
        self.push_webhooks_total = counter(
            "push_webhooks_total", "Push webhooks answered.", result=HEARD
        )
        self.drift_total = counter(
            "drift_total",
            "Live objects found other than git says.",
            kind=DRIFTING,
            result=("corrected", "detected", "held"),
        )
        self.drift_seconds = histogram(
            "drift_seconds", "From a change seen to the object put back.", LATENCY_BUCKETS
        )
        self.commit_statuses_total = counter(
            "commit_statuses_total", "Commit statuses sent to forges.", result=STATUSES
        )
        self.notifications_total = counter(
            "notifications_total", "CloudEvents sent to receivers.", result=NOTIFIED
        )
        self.rollouts_total = counter(
            "rollouts_total", "Rollouts that ended.", result=("promoted", "halted", "replaced")
        )
        self.shadow_runs_total = counter(
            "shadow_runs_total", "Runs of shadows compared.", result=("same", "differs")
        )
        self.mqtt_messages_total = counter(
            "mqtt_messages_total", "Messages from and to the MQTT broker.", result=MQTT
        )
        self.shards_led = gauge(
            "shards_led", "Shards of the namespaces that this replica leads; 0 without replicas."
        )
        self.executors = gauge("executors", "Executors connected.")
        self.executor_credit = gauge("executor_credit", "Runs that executors would take now.")
        self.git_fetch_seconds = histogram(
            "git_fetch_seconds", "Time of a git fetch.", FETCH_BUCKETS
        )
        self.store_objects = Gauge(
            "store_objects",
            "Objects held in memory.",
            ("kind",),
            namespace="scriptops",
            registry=registry,
        )
        for kind in KINDS:
            self.store_objects.labels(kind)
