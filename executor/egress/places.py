"""Places on the network, as manifests and operators name them, and which URLs are in them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from executor.egress import addresses

if TYPE_CHECKING:
    from yarl import URL

DEFAULT_PORTS: Final = {"http": 80, "https": 443}

LARGEST_PORT: Final = 65_535

# As the Script kind writes it; what is compared must be written in one way only.
_PLACE: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z](?:[-0-9A-Za-z._]*[0-9A-Za-z])?)"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>/[-0-9A-Za-z._~!$&'()*+,;=:@/]*)?"
)
# A server may take these for a dot or a slash, after we compared the path.
_AMBIGUOUS: Final = re.compile(r"%(25)*(2e|2f|5c)|\\|//|/\.{1,2}(;|/|$)", re.IGNORECASE)


class Place(NamedTuple):
    """One host at one port over one scheme, and the path below which all of it is meant."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, text: str) -> Place:
        """`https://host[:port][/path-prefix]`.

        Raises:
            ValueError: it is something else.
        """
        match = _PLACE.fullmatch(text)
        port = int(match["port"] or DEFAULT_PORTS[match["scheme"]]) if match else 0
        if match is None or not 1 <= port <= LARGEST_PORT or _AMBIGUOUS.search(match["path"] or ""):
            raise ValueError(f"{text!r} is not a place; write https://host[:port][/path-prefix]")
        path = (match["path"] or "").rstrip("/")
        return cls(match["scheme"], canonical(match["host"]), port, path)

    def covers(self, url: URL) -> bool:
        """Whether `url`, which has scheme, host and port, is this place or below it."""
        if (self.scheme, self.host, self.port) != (
            url.scheme,
            canonical(url.raw_host or ""),
            url.port,
        ):
            return False
        if not self.path:
            return True
        path = url.raw_path
        return f"{path}/".startswith(f"{self.path}/") and not _AMBIGUOUS.search(path)


def canonical(host: str) -> str:
    """A host as it is compared: one spelling for one name or address."""
    address = addresses.parse(host)
    return str(address) if address is not None else host.lower().removesuffix(".")
