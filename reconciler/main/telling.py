"""What is told outside of the cluster: commit statuses and notes to git, notifications."""

from __future__ import annotations

from reconciler.adapters.git import GitMirrors
from reconciler.adapters.outbound import HttpOutbound
from reconciler.controllers.commitstatuses import CommitStatuses
from reconciler.controllers.events import Events
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.notifying import Notifications
from reconciler.controllers.precedence import Precedence
from reconciler.controllers.repositories import Repositories
from reconciler.controllers.scripts import Scripts
from reconciler.controllers.secrets import Secrets
from reconciler.controllers.statuses import ScriptStatuses
from reconciler.controllers.statusnotes import StatusNotes
from reconciler.controllers.world import World
from reconciler.ports.clock import Clock


class Telling:
    """Those that tell, listening from the start to those they tell of; each has a loop to be run.

    `outbound` and `status_notes` are the caller's to end.
    """

    def __init__(
        self,
        world: World,
        git: GitMirrors,
        secrets: Secrets,
        repositories: Repositories,
        scripts: Scripts,
        statuses: ScriptStatuses,
        events: Events,
        precedence: Precedence,
        *,
        clock: Clock,
        metrics: Metrics,
        cluster_name: str,
    ) -> None:
        self.outbound = HttpOutbound()
        self.commit_statuses = CommitStatuses(
            world,
            self.outbound,
            secrets,
            events,
            clock=clock,
            metrics=metrics,
            cluster_name=cluster_name,
            latest=lambda record: statuses.latest(record.key, record.uid, record.status),
            passed=repositories.branches.passed,
        )
        repositories.progress.append(self.commit_statuses.progressed)
        scripts.listeners.append(self.commit_statuses.script_status)
        self.status_notes = StatusNotes(
            git,
            repositories.notes,
            events,
            precedence,
            clock=clock,
            metrics=metrics,
            cluster_name=cluster_name,
        )
        repositories.progress.append(self.status_notes.progressed)
        self.notifications = Notifications(
            world,
            self.outbound,
            secrets,
            events,
            clock=clock,
            metrics=metrics,
            cluster_name=cluster_name,
        )
        events.listeners.append(self.notifications.transition)
