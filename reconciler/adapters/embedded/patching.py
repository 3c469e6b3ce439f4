"""JSON patches (RFC 6902) of documents that a JSON parser made.

The plain operations are done here, on copies of only what lies on their paths: that is a tenth of
what the library takes for a patch of a Device. Whatever is out of the ordinary (another operation,
a test that fails, a path that is not there) is left to the library, which says what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import jsonpatch

from reconciler.core.objects import JsonObject, mapping

# More digits than any index has are not worth converting.
_LONGEST_INDEX = 9
_BROKEN_ESCAPE = re.compile(r"~(?![01])")


class _Unusual(Exception):
    """For the library."""


def applied(live: JsonObject, patch: Sequence[JsonObject]) -> JsonObject:
    """Raises what jsonpatch raises. `live` stays as it is; the result shares parts with it."""
    result: Any = live
    try:
        for step in patch:
            result = _stepped(result, step)
    except (_Unusual, KeyError):
        return mapping(jsonpatch.apply_patch(live, list(patch)))
    return mapping(result)


def _stepped(document: Any, step: JsonObject) -> Any:
    op, path = step["op"], step["path"]
    if type(path) is not str or path[:1] != "/":
        raise _Unusual
    tokens = path[1:].split("/")
    if "~" in path:
        if _BROKEN_ESCAPE.search(path):
            raise _Unusual
        tokens = [token.replace("~1", "/").replace("~0", "~") for token in tokens]
    if op == "test":
        found = document
        for token in tokens:
            found = found[_place(found, token)]
        if found != step["value"]:
            raise _Unusual
        return document
    if op not in {"add", "replace"}:
        raise _Unusual
    value = step["value"]
    result = holder = _copy(document)
    for token in tokens[:-1]:
        place = _place(holder, token)
        holder[place] = holder = _copy(holder[place])
    last = tokens[-1]
    if op == "add" and type(holder) is dict:
        holder[last] = value
    elif op == "add" and last == "-":
        holder.append(value)
    elif op == "add":
        holder.insert(_place(holder, last), value)
    else:
        holder[_place(holder, last)] = value
    return result


def _copy(holder: Any) -> Any:
    if type(holder) is dict or type(holder) is list:
        return holder.copy()
    raise _Unusual


def _place(holder: Any, token: str) -> Any:
    """The key or index by which `holder` has something."""
    if type(holder) is dict and token in holder:
        return token
    if type(holder) is list and len(token) <= _LONGEST_INDEX and token.isdecimal():
        index = int(token)
        if index < len(holder) and str(index) == token:
            return index
    raise _Unusual
