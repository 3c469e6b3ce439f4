"""What an IP address reaches, however it is dressed up.

`ipaddress.is_global` says yes to NAT64, 6to4 and multicast addresses that lead inside; here the
IPv4 address within is taken out and judged itself. Names are not judged: resolve them, judge what
came out, and connect to exactly that.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address


class Reach(StrEnum):
    """Where packets to an address go."""

    GLOBAL = "the internet"
    PRIVATE = "a private network"
    LOOPBACK = "this machine"
    LINK_LOCAL = "the local link"
    SHARED = "a carrier's network"
    MULTICAST = "many machines"
    RESERVED = "no machine that can be named"


# Longest prefixes first where they nest: 64:ff9b:1::/48 lets its operator choose where the IPv4
# address stands, so it cannot be taken out and is judged as a whole.
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
_NAT64 = IPv6Network("64:ff9b::/96")
_COMPATIBLE = IPv6Network("::/96")
_TRANSLATED = IPv6Network("::ffff:0:0:0/96")
_SITE_LOCAL = IPv6Network("fec0::/10")
_SHARED = IPv4Network("100.64.0.0/10")
# Of this block only two anycast addresses are global; nobody serves artifacts there.
_PROTOCOLS = IPv4Network("192.0.0.0/24")
# "This network": 0.0.0.0 connects to the machine itself on Linux.
_THIS = IPv4Network("0.0.0.0/8")
# Interface identifiers of ISATAP, with and without the "globally unique" bit.
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)


def parse(text: str) -> Address | None:
    """`text` as an address (brackets and an IPv6 zone are passed over), or None."""
    try:
        return ip_address(text.removeprefix("[").removesuffix("]").partition("%")[0])
    except ValueError:
        return None


def unwrap(address: Address) -> Address:
    """The IPv4 address that an IPv6 address carries, or the address itself."""
    if isinstance(address, IPv4Address):
        return address
    number = int(address)
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _COMPATIBLE and number > 1:  # :: and ::1 are themselves
        return IPv4Address(number & 0xFFFF_FFFF)
    if address in _NAT64 or address in _TRANSLATED:
        return IPv4Address(number & 0xFFFF_FFFF)
    if (number >> 32) & 0xFFFF_FFFF in _ISATAP:
        return IPv4Address(number & 0xFFFF_FFFF)
    return address


def judge(address: Address) -> Reach:
    """Where packets to `address` go; what is not known to be elsewhere is `RESERVED`."""
    inner = unwrap(address)
    if inner.is_multicast:
        return Reach.MULTICAST
    if inner.is_loopback or inner.is_unspecified:
        return Reach.LOOPBACK
    if inner.is_link_local:
        return Reach.LINK_LOCAL
    if isinstance(inner, IPv4Address):
        return _judge_v4(inner)
    return _judge_v6(inner)


def _judge_v4(address: IPv4Address) -> Reach:
    if address in _THIS:
        return Reach.LOOPBACK
    if address in _SHARED:
        return Reach.SHARED
    if address.is_reserved or address in _PROTOCOLS:
        return Reach.RESERVED
    return _judge_rest(address)


def _judge_v6(address: IPv6Address) -> Reach:
    if address in _LOCAL_NAT64 or address.is_reserved:
        return Reach.RESERVED
    if address in _SITE_LOCAL:
        return Reach.PRIVATE
    return _judge_rest(address)


# RFC 1918 and unique local addresses. `is_private` holds documentation and benchmark blocks too.
_PRIVATE = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv6Network("fc00::/7"),
)


def _judge_rest(address: Address) -> Reach:
    if any(address in network for network in _PRIVATE):
        return Reach.PRIVATE
    return Reach.GLOBAL if address.is_global else Reach.RESERVED


def is_loopback(text: str) -> bool:
    """Whether `text` is an address of this machine itself; `localhost` is a name, not one."""
    address = parse(text)
    return address is not None and judge(address) is Reach.LOOPBACK
