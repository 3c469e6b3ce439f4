"""The HTTP door: health, metrics, the script registry, the webhook and a page to look at.

It answers from `Operations` and `Registry` and decides nothing itself, except who may enter. What
would change the world or shows the inside (the webhook, debug) is for peers on this machine only,
unless the operator says otherwise. Push webhooks are for whoever signs them.
"""

from reconciler.web.application import app
from reconciler.web.server import serve

__all__ = ["app", "serve"]
