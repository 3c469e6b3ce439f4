"""The HTTP door: health, metrics, the script registry, the webhook and a page to look at.

It answers from `Operations` and `Registry` and decides nothing itself. Who may enter is asked of
`Access`, by a token; users of this machine need none where nobody else gets in. Push webhooks are
for whoever signs them.
"""

from reconciler.web.application import app
from reconciler.web.gate import Asgi
from reconciler.web.server import serve
from reconciler.web.tls import Tls

__all__ = ["Asgi", "Tls", "app", "serve"]
