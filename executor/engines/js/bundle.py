"""A script of our own, bundled from npm, in a V8 isolate that no guest's code ever runs in."""

from __future__ import annotations

from contextlib import ExitStack
from importlib import resources
from typing import TYPE_CHECKING, cast

from py_mini_racer import mini_racer

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from py_mini_racer import JSFunction, JSMappedObject


def text(name: str) -> str:
    """A bundle of the folder `linker`. To be read at import: a worker has no files later."""
    return (resources.files(__package__) / "linker" / name).read_text("utf-8")


class Bundle:
    """Started when it is first asked, and kept. Only strings cross; blocks the calling thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, source: str) -> None:
        self._loop = loop
        self._source = source
        self._exit = ExitStack()
        self._object: JSMappedObject | None = None

    def ask(self, method: str, answer: str, **given: str) -> str:
        """Set the properties `given`, call `method`, and read the property `answer`.

        What the method started has settled by then, as far as it waits for nothing but itself.
        """
        if self._object is None:
            racer = self._exit.enter_context(mini_racer(self._loop))
            self._object = cast("JSMappedObject", racer.eval(self._source))
        self._set(self._object, given)
        cast("JSFunction", self._object[method])()
        return str(self._object[answer])

    @staticmethod
    def _set(target: JSMappedObject, given: Mapping[str, str]) -> None:
        for name, value in given.items():
            target[name] = value

    def close(self) -> None:
        self._object = None
        self._exit.close()
