"""The only place where adapters and controllers meet.

`assembly` joins one controller, `local` puts an embedded cluster, an executor and simulated devices
around it, `demo` shows one at work, `offline` looks without changing. The command line calls what
is named here.
"""

from reconciler.main.assembly import controller
from reconciler.main.demo import demo
from reconciler.main.local import up
from reconciler.main.offline import plan

__all__ = ["controller", "demo", "plan", "up"]
