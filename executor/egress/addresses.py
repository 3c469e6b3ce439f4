"""Which IP addresses a script's request may go to, however they are dressed up.

Packets to an IPv6 address that carries an IPv4 one end at that one, so it is judged itself.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address

# Where the services of a cluster are. `is_private` has this machine and documentation in it too.
_PRIVATE: Final = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv6Network("fc00::/7"),
)
# Metadata of clouds, and keys of pods, that hide in otherwise good ranges: Azure, AWS, Google,
# Oracle, Scaleway.
_METADATA: Final = (
    IPv4Network("168.63.129.16/32"),
    IPv6Network("fd00:ec2::/32"),
    IPv6Network("fd20:ce::254/128"),
    IPv6Network("fd00:c1::a9fe:a9fe/128"),
    IPv6Network("fd00:42::42/128"),
)
# IPv4-mapped, -compatible and -translated, NAT64: the last 32 bits are the IPv4 address.
_CARRYING: Final = (
    IPv6Network("::ffff:0:0/96"),
    IPv6Network("::/96"),
    IPv6Network("::ffff:0:0:0/96"),
    IPv6Network("64:ff9b::/96"),
)
# Called global, and not. Of a local NAT64 its operator chooses where the IPv4 address stands, so it
# cannot be taken out; the other is what sites once called their own.
_LOCAL: Final = (IPv6Network("64:ff9b:1::/48"), IPv6Network("fec0::/10"))
# Interface identifiers of ISATAP, with and without the "globally unique" bit.
_ISATAP: Final = (0x0000_5EFE, 0x0200_5EFE)


def parse(text: str) -> Address | None:
    """`text` as an address (brackets and an IPv6 zone are passed over), or None."""
    try:
        return ip_address(text.removeprefix("[").removesuffix("]").partition("%")[0])
    except ValueError:
        return None


def is_reachable(address: Address) -> bool:
    """Whether a name that is allowed may lead to `address`: the internet or a private network.

    Not to this machine, the local link, the metadata of a cloud, or anything that is not known to
    be one of the two. One that carries another address must carry a global one.
    """
    carried = _carried(address)
    if carried is not None:
        return _is_global(carried)
    if _is_metadata(address):
        return False
    return any(address in network for network in _PRIVATE) or _is_global(address)


def _is_metadata(address: Address) -> bool:
    return any(address in network for network in _METADATA)


def _is_global(address: Address) -> bool:
    return (
        address.is_global
        and not _is_metadata(address)
        and not any(address in network for network in _LOCAL)
        and not address.is_multicast
        and not address.is_reserved
    )


def _carried(address: Address) -> IPv4Address | None:
    if isinstance(address, IPv4Address):
        return None
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    number = int(address)
    is_isatap = (number >> 32) & 0xFFFF_FFFF in _ISATAP
    if is_isatap or any(address in network for network in _CARRYING):
        return IPv4Address(number & 0xFFFF_FFFF)
    return None
