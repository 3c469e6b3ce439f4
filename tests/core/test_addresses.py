"""What an address reaches, however it is written."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from reconciler.core.addresses import Reach, is_loopback, judge, parse


@pytest.mark.parametrize(
    ("text", "reach"),
    [
        pytest.param("93.184.216.34", Reach.GLOBAL, id="a public IPv4 address"),
        pytest.param("2606:2800:220:1::1", Reach.GLOBAL, id="a public IPv6 address"),
        pytest.param("10.1.2.3", Reach.PRIVATE, id="RFC 1918, ten"),
        pytest.param("172.31.255.255", Reach.PRIVATE, id="RFC 1918, 172.16"),
        pytest.param("192.168.0.1", Reach.PRIVATE, id="RFC 1918, 192.168"),
        pytest.param("fd00::1", Reach.PRIVATE, id="unique local"),
        pytest.param("fec0::1", Reach.PRIVATE, id="site local of old"),
        pytest.param("127.0.0.1", Reach.LOOPBACK, id="loopback"),
        pytest.param("127.255.1.2", Reach.LOOPBACK, id="the far end of loopback"),
        pytest.param("::1", Reach.LOOPBACK, id="IPv6 loopback"),
        pytest.param("0.0.0.0", Reach.LOOPBACK, id="unspecified, which Linux takes for itself"),
        pytest.param("0.1.2.3", Reach.LOOPBACK, id="this network"),
        pytest.param("::", Reach.LOOPBACK, id="IPv6 unspecified"),
        pytest.param("169.254.169.254", Reach.LINK_LOCAL, id="metadata service"),
        pytest.param("fe80::1", Reach.LINK_LOCAL, id="IPv6 link local"),
        pytest.param("100.64.0.1", Reach.SHARED, id="carrier NAT, neither private nor global"),
        pytest.param("100.127.255.254", Reach.SHARED, id="the end of carrier NAT"),
        pytest.param("224.0.0.251", Reach.MULTICAST, id="multicast, global to ipaddress"),
        pytest.param("ff0e::1", Reach.MULTICAST, id="global IPv6 multicast"),
        pytest.param("255.255.255.255", Reach.RESERVED, id="broadcast"),
        pytest.param("240.0.0.1", Reach.RESERVED, id="class E"),
        pytest.param("192.0.0.8", Reach.RESERVED, id="protocol assignments"),
        pytest.param("192.0.2.1", Reach.RESERVED, id="documentation"),
        pytest.param("198.18.0.1", Reach.RESERVED, id="benchmarks"),
        pytest.param("2001:db8::1", Reach.RESERVED, id="IPv6 documentation"),
        pytest.param("64:ff9b:1::a9fe:a9fe", Reach.RESERVED, id="NAT64 of the operator's choice"),
        pytest.param("::ffff:169.254.169.254", Reach.LINK_LOCAL, id="mapped metadata"),
        pytest.param("::ffff:93.184.216.34", Reach.GLOBAL, id="mapped public"),
        pytest.param("::ffff:224.0.0.1", Reach.MULTICAST, id="mapped multicast"),
        pytest.param("::127.0.0.1", Reach.LOOPBACK, id="IPv4-compatible loopback"),
        pytest.param("::ffff:0:127.0.0.1", Reach.LOOPBACK, id="translated loopback"),
        pytest.param("64:ff9b::a9fe:a9fe", Reach.LINK_LOCAL, id="NAT64 metadata"),
        pytest.param("64:ff9b::5db8:d822", Reach.GLOBAL, id="NAT64 public"),
        pytest.param("2002:a9fe:a9fe::", Reach.LINK_LOCAL, id="6to4 metadata"),
        pytest.param("2002:7f00:1::1", Reach.LOOPBACK, id="6to4 loopback"),
        # The client stands in the last 32 bits, inverted.
        pytest.param("2001:0:5db8:d822:0:0:80ff:fffe", Reach.LOOPBACK, id="Teredo to loopback"),
        pytest.param("2606:2800:220:1:0:5efe:10.0.0.1", Reach.PRIVATE, id="ISATAP to a private"),
        pytest.param("2606:2800:220:1:200:5efe:127.0.0.1", Reach.LOOPBACK, id="ISATAP, unique bit"),
    ],
)
def test_an_address_is_judged_by_where_its_packets_go(text: str, reach: Reach) -> None:
    assert judge(ip_address(text)) is reach


@pytest.mark.parametrize(
    ("text", "claim"),
    [
        pytest.param("127.0.0.1", True, id="loopback"),
        pytest.param("[::1]", True, id="in brackets"),
        pytest.param("::1%lo", True, id="with a zone"),
        pytest.param("::ffff:127.0.0.1", True, id="as a dual-stack socket shows it"),
        pytest.param("localhost", False, id="a name is no address"),
        pytest.param("192.168.1.2", False, id="a neighbour"),
        pytest.param("", False, id="nothing"),
    ],
)
def test_only_addresses_of_this_machine_are_loopback(text: str, claim: bool) -> None:  # noqa: FBT001  # a table's column
    assert is_loopback(text) is claim


@pytest.mark.parametrize(
    "text", ["2852039166", "0xA9FEA9FE", "0251.0376.0251.0376", "127.1", "①.⓪.⓪.①"]
)
def test_odd_spellings_are_names_to_be_resolved_not_addresses(text: str) -> None:
    assert parse(text) is None
