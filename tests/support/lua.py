"""Lua as Argo CD runs it: version 5.1, an object as `obj`, and only the libraries it opens.

These are base, package, table and an `os` with the time alone; strings have no methods.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

# What the harness itself needs is taken aside before it is taken away.
_HARNESS = """\
local format, byte, gsub, concat, print_ = string.format, string.byte, string.gsub, table.concat, print
local load, type_, pairs_, ipairs_, error_ = loadstring, type, pairs, ipairs, error
local date, time, next_ = os.date, os.time, next
local function encode(value)
  local kind = type_(value)
  if kind == "table" then
    local parts = {}
    -- An empty table is an array to Argo CD, too.
    if #value > 0 or next_(value) == nil then
      for _, item in ipairs_(value) do parts[#parts + 1] = encode(item) end
      return "[" .. concat(parts, ",") .. "]"
    end
    for key, item in pairs_(value) do parts[#parts + 1] = encode(key) .. ":" .. encode(item) end
    return "{" .. concat(parts, ",") .. "}"
  elseif kind == "string" then
    return '"' .. gsub(value, '[%c"\\\\]', function(c) return format("\\\\u%04x", byte(c)) end) .. '"'
  elseif kind == "number" then
    return format("%.17g", value)
  elseif kind == "boolean" then
    return value and "true" or "false"
  end
  error_("cannot be encoded: " .. kind)
end
getmetatable("").__index = nil
local safe = { date = date, time = time }
for name in pairs_({ string = 1, math = 1, io = 1, debug = 1, coroutine = 1 }) do
  package.loaded[name] = nil
  _G[name] = nil
end
os, package.loaded.os = safe, safe
"""


class LuaError(Exception):
    """The script raised, or did not compile."""


def run(script: str, obj: Any) -> Any:
    """What `script` returns for `obj`."""
    program = (
        f"{_HARNESS}obj = {_literal(obj)}\n"
        f"local chunk, problem = load({_text(script)})\n"
        "if chunk == nil then error_(problem) end\n"
        "print_(encode(chunk()))\n"
    )
    done = subprocess.run(
        ["lua5.1", "-"], input=program, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise LuaError(done.stderr.strip())
    return json.loads(done.stdout)


def _literal(value: Any) -> str:
    match value:
        case None:
            return "nil"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return _text(value)
        case list():
            return "{" + ",".join(map(_literal, value)) + "}"
        case dict():
            return "{" + ",".join(f"[{_text(k)}]={_literal(v)}" for k, v in value.items()) + "}"
        case _:
            raise TypeError(type(value).__name__)


def _text(value: str) -> str:
    return '"' + "".join(f"\\{byte:03d}" for byte in value.encode()) + '"'
