"""One run: what it was given, what it asked for, and the completion that comes of both.

The rules are those of the JavaScript engine, word for word where a word reaches a person: aliases,
values, lengths, counts, output, state. A refusal goes back to the guest as a code, and into the log
in any case, because nothing makes a guest look at the code.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import orjson

from executor import ops
from executor.model import LogLevel, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

Completion = list[object]

ABSENT: Final = -1
"""There is no such thing: a property that is not known, an unset variable, no key, no item."""
DENIED: Final = -2
"""The Script's manifest or limits do not permit it."""
INVALID: Final = -3
"""It cannot be that: no UTF-8, no finite number, too long, an unknown code."""
FAILED: Final = -4
"""The world did not do it."""

_EXACT: Final = 2.0**53


class Refused(Exception):
    """An op was not done; the guest is told `code` and may go on."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Ended(Exception):
    """The run is over, in the middle of the guest."""

    def __init__(self, outcome: Outcome, text: str = "") -> None:
        super().__init__(text)
        self.outcome = outcome


class Run:
    """The facts of an activation and what a guest has done about them so far."""

    def __init__(self, activation: Mapping[str, Any], limits: Mapping[str, int]) -> None:
        """Raises `TypeError` or `KeyError` for an activation that is not one."""
        self.now = float(activation["now"])
        self.event: object = activation["event"]
        self.env = _record(activation["env"])
        self.read = _record(activation["read"])
        self.write: list[str] = activation["write"]
        self._seed = int(activation["seed"]) & 0xFFFF_FFFF
        self._before = _record(activation.get("state", {}))
        self._replies = activation.get("replies", ())
        self._limits = limits
        self._logs: list[tuple[int, str]] = []
        self._writes: list[list[object]] = []
        self._staged: dict[str, dict[str, object]] = {}
        self._sets = 0
        self._printed = 0
        self._truncated = ""
        self._state: dict[str, bytes] | None = None
        self._state_bytes = 2
        self._state_changed = False
        self._asked: list[dict[str, object]] = []
        self.refusal: Refused | None = None
        # What was written to WASI's two outputs since the last end of a line.
        self.lines = {1: bytearray(), 2: bytearray()}

    # devices

    def reported(self, alias: str, name: str) -> object:
        """The value of the snapshot; None when it is not known."""
        properties = self.read.get(alias)
        if properties is None:
            raise Refused(DENIED, f"device {_short(alias)} is not readable for this script")
        return properties.get(name)

    def stage(self, alias: str, name: str, value: object) -> None:
        self._judge_writable(alias)
        if not 0 < len(name) <= ops.PROPERTY_CHARACTERS:
            most = ops.PROPERTY_CHARACTERS
            raise Refused(INVALID, f"a property name is a string of 1 to {most} characters")
        if type(value) is float:
            value = _finite(value)
        elif type(value) is str and len(value) > ops.VALUE_CHARACTERS:
            most = ops.VALUE_CHARACTERS
            raise Refused(INVALID, f"a device value has at most {most} characters")
        self._sets += 1
        most = self._limits["writes"]
        if self._sets > most:
            raise Refused(DENIED, f"a run may stage at most {most} writes")
        self._staged.setdefault(alias, {})[name] = value

    def commit(self, alias: str, qos: int, *, force: bool) -> int:
        """What was reached; with more than 0 it ends this pass of the run until that is known."""
        self._judge_writable(alias)
        if qos > 2:
            raise Refused(INVALID, "qos is 0, 1 or 2")
        for name, value in self._staged.pop(alias, {}).items():
            self._writes.append([alias, name, value, qos, force])
        if qos == 0:
            return 0
        # What waits to be written to this device goes along, so that the order stays.
        writes = [it for it in self._writes if it[0] == alias and len(it) == _UNDONE]
        if not writes:
            return qos
        op = {"op": "commit", "alias": alias, "qos": qos, "writes": writes, "ms": 0}
        reply = self._answer(self._number(op))
        for write in writes:
            write.append(True)
        if reply["ok"] is not True:
            told = f"commitDevice {_short(alias)}: {reply.get('message')}"
            raise Refused(DENIED if reply.get("code") == "Denied" else FAILED, told)
        return int(str(reply["reached"]))

    def _judge_writable(self, alias: str) -> None:
        if alias not in self.write:
            raise Refused(DENIED, f"device {_short(alias)} is not writable for this script")

    # the log

    def warn(self, text: str) -> None:
        self._logs.append((LogLevel.WARN, text))

    def print(self, level: int, text: str, size: int) -> None:
        """`text` becomes a line; `size` is how many bytes it has."""
        if level not in _LEVELS:
            raise Refused(INVALID, "a log level is 1 (debug), 2 (info), 3 (warn) or 4 (error)")
        output = self._limits["output"]
        before = self._printed
        self._printed = printed = before + 1 + size
        if printed > ops.FLOOD_FACTOR * output:
            self.flood()
        if printed <= output and len(self._logs) < ops.LOG_LINES:
            self._logs.append((level, text))
        elif self._truncated:
            return
        elif printed <= output:
            self._truncated = f"{ops.LOG_LINES} lines"
        else:
            self._truncated = f"{output} bytes"
            if rest := text.encode()[: max(0, output - before)].decode(errors="ignore"):
                self._logs.append((level, rest))

    def refuse(self, name: str, refusal: Refused) -> None:
        """Remember why the op `name` was not done; a person can read it in the log."""
        self.refusal = refusal
        if refusal.code != ABSENT:
            text = f"{name}: {refusal}"
            self.print(LogLevel.WARN, text, len(text))

    @property
    def state_limit(self) -> int:
        return self._limits["state"]

    @property
    def flood_bytes(self) -> int:
        return ops.FLOOD_FACTOR * self._limits["output"]

    def flood(self) -> None:
        raise Ended(
            Outcome.OUTPUT_TOO_LARGE, f"the script printed more than {self.flood_bytes} bytes"
        )

    # randomness: Mulberry32, the same numbers as Math.random in JavaScript

    def random_bits(self) -> int:
        self._seed = state = (self._seed + 0x6D2B79F5) & 0xFFFF_FFFF
        mixed = ((state ^ (state >> 15)) * (state | 1)) & 0xFFFF_FFFF
        mixed ^= (mixed + (mixed ^ (mixed >> 7)) * (mixed | 61)) & 0xFFFF_FFFF
        return mixed ^ (mixed >> 14)

    def random_bytes(self, count: int) -> bytes:
        words = [self.random_bits().to_bytes(4, "little") for _ in range((count + 3) // 4)]
        return b"".join(words)[:count]

    # state

    def remembered(self) -> dict[str, bytes]:
        """JSON by key; taken out of the activation when first asked for."""
        if self._state is None:
            self._state = {key: orjson.dumps(value) for key, value in self._before.items()}
            self._state_bytes += sum(_entry_bytes(k, v) for k, v in self._state.items())
        return self._state

    def remember(self, key: str, value: bytes) -> None:
        _judge_key(key)
        try:
            given = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise Refused(INVALID, "a state value must be JSON") from error
        _judge_depth(given, "a state value")
        value = orjson.dumps(given)
        state = self.remembered()
        before = state.get(key)
        freed = 0 if before is None else _entry_bytes(key, before)
        total = self._state_bytes - freed + _entry_bytes(key, value)
        most = self._limits["state"]
        if total > most:
            told = f"the state would be {total} bytes; at most {most} are kept"
            raise Refused(DENIED, f"{told}, as spec.limits.state says")
        self._state_bytes = total
        state[key] = value
        self._state_changed = True

    def forget(self, key: str) -> bool:
        _judge_key(key)
        value = self.remembered().pop(key, None)
        if value is None:
            return False
        self._state_bytes -= _entry_bytes(key, value)
        self._state_changed = True
        return True

    # what it wants from the world

    def ask(self, request: object) -> int:
        """The number under which the reply to a request will be found."""
        if not isinstance(request, dict) or not isinstance(request.get("url"), str):
            raise Refused(INVALID, "a request must be a JSON object with a `url`")
        _judge_depth(request, "a request")
        most = self._limits["fetches"]
        if most == 0:
            grant = "its manifest grants it places with spec.network.allow"
            raise Refused(DENIED, f"this script may not fetch; {grant}")
        if sum(op["op"] == "fetch" for op in self._asked) >= most:
            told = f"a run may fetch at most {most} times"
            raise Refused(DENIED, f"{told}; spec.limits.fetches says so")
        wanted = {**request, "op": "fetch", "n": len(self._asked)}
        length = len(orjson.dumps(wanted))
        if length > ops.REQUEST_CHARACTERS:
            most = ops.REQUEST_CHARACTERS
            told = f"a request of {length} characters is too large"
            raise Refused(DENIED, f"{told}; at most {most} are sent")
        return self._number(wanted)

    def reply(self, number: int) -> Mapping[str, object]:
        """What the world answered; ends this pass of the run when it has not been asked yet."""
        if number >= len(self._asked) or self._asked[number]["op"] != "fetch":
            raise Refused(ABSENT, f"there is no fetch {number}")
        return self._answer(number)

    def _number(self, op: dict[str, object]) -> int:
        op["n"] = len(self._asked)
        self._asked.append(op)
        return len(self._asked) - 1

    def _answer(self, number: int) -> Mapping[str, object]:
        for reply in self._replies:
            if reply["n"] == number:
                return reply  # type: ignore[no-any-return]  # JSON objects, judged by their sender
        raise Ended(Outcome.WAITING)

    def _wanted(self) -> list[dict[str, object]]:
        known = {reply["n"] for reply in self._replies}
        return [op for op in self._asked if op["n"] not in known]

    # the end

    def completion(self, outcome: Outcome, message: str = "") -> Completion:
        """What leaves the sandbox. Nothing that a run staged or remembered does, if it failed."""
        wanted = self._wanted()
        if outcome is Outcome.WAITING:
            return [outcome, "", self._logs, [], None, wanted]
        for op in wanted:
            self.warn(f"fetch {_short(str(op.get('url')))} was not awaited, so it was not sent")
        if self._truncated:
            self.warn(f"output over {self._truncated} was dropped")
        if outcome is not Outcome.SUCCEEDED:
            return [outcome, message[: ops.MESSAGE_CHARACTERS], self._logs, [], None, []]
        for alias, values in self._staged.items():
            for name in values:
                told = f"{alias}.{name} was set but not committed, so it was dropped"
                self.warn(f"{told}; call device_commit")
        state = None
        if self._state_changed:
            state = {key: orjson.Fragment(value) for key, value in self.remembered().items()}
        return [outcome, "", self._logs, self._writes, state, []]


_LEVELS: Final = frozenset(LogLevel)
# Fields of a write that nobody has performed; one more says that it is done.
_UNDONE: Final = 5


def _record(value: object) -> dict[str, Any]:
    if type(value) is not dict:
        raise TypeError
    return value


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise Refused(INVALID, f"a device value must be a finite number, not {value}")
    # Whole numbers look in JSON as JavaScript writes them.
    return int(value) if value.is_integer() and abs(value) < _EXACT else value


def _judge_key(key: str) -> None:
    if not 0 < len(key) <= ops.KEY_CHARACTERS:
        most = ops.KEY_CHARACTERS
        raise Refused(INVALID, f"a state key is a string of 1 to {most} characters")


def _judge_depth(value: object, what: str) -> None:
    """Towers are refused: those who read it after us give up at some height."""
    level: list[object] = [value]
    for _ in range(ops.JSON_DEPTH):
        level = [
            part
            for item in level
            if isinstance(item, dict | list)
            for part in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    if any(isinstance(item, dict | list) for item in level):
        raise Refused(INVALID, f"{what} is nested more than {ops.JSON_DEPTH} deep")


def _entry_bytes(key: str, value: bytes) -> int:
    """What an entry adds to the JSON of the whole: quotes and escapes, colon and comma."""
    return len(orjson.dumps(key)) + len(value) + 2


def _short(text: str) -> str:
    return text[: ops.PROPERTY_CHARACTERS]
