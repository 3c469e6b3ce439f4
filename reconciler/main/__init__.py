"""The only place where adapters and controllers meet.

`assembly` joins one controller, `serving` runs it as a process, `local` puts an embedded cluster,
an executor and simulated devices around it, `demo` shows one at work, `offline` looks without
changing. The command line calls what is named here; each is imported when it is first called for,
since a verb needs one and pays for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from reconciler.main.demo import demo
    from reconciler.main.emulation import emulate
    from reconciler.main.local import up
    from reconciler.main.offline import plan
    from reconciler.main.scenarios import simulate
    from reconciler.main.serving import controller

__all__ = ["controller", "demo", "emulate", "plan", "simulate", "up"]

_MODULES: Final = {
    "controller": "serving",
    "demo": "demo",
    "emulate": "emulation",
    "plan": "offline",
    "simulate": "scenarios",
    "up": "local",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(name)
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
