"""URLs as they may be shown."""

from __future__ import annotations

import re
from typing import Final

_USERINFO: Final = re.compile(r"(?<=://)[^/@\s]*@")
# Forges take tokens there, too.
_QUERY: Final = re.compile(r"(?<=://)([^\s?#'\"]*)[?#][^\s'\"]*")


def redact(text: str) -> str:
    """`text` with what stands before the @ and after the path of any URL taken out."""
    return _QUERY.sub(r"\1?***", _USERINFO.sub("***@", text))
