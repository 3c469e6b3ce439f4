"""Which URLs are in a place that somebody named, and which addresses a name may lead to."""

from __future__ import annotations

import pytest
from yarl import URL

from executor.egress import addresses
from executor.egress.places import Place


@pytest.mark.parametrize(
    ("place", "url", "is_in"),
    [
        pytest.param("https://a.b", "https://a.b/", True, id="the host itself"),
        pytest.param("https://a.b", "https://a.b/x/y?z=1", True, id="all that is below it"),
        pytest.param("https://a.b/", "https://a.b/x", True, id="a lone slash is no prefix"),
        pytest.param("https://A.B", "https://a.b./", True, id="one spelling of one host"),
        pytest.param("https://a.b", "https://a.b:443/", True, id="the port of the scheme"),
        pytest.param("https://a.b", "http://a.b/", False, id="another scheme"),
        pytest.param("https://a.b", "https://a.b:8443/", False, id="another port"),
        pytest.param("http://a.b:8080", "http://a.b/", False, id="no port where one is named"),
        pytest.param("https://a.b", "https://x.a.b/", False, id="a host below"),
        pytest.param("https://a.b", "https://a.b.evil/", False, id="a host that begins like it"),
        pytest.param("https://a.b", "https://evil-a.b/", False, id="a host that ends like it"),
        pytest.param("https://a/v1", "https://a/v1", True, id="the path itself"),
        pytest.param("https://a/v1/", "https://a/v1", True, id="the path without its slash"),
        pytest.param("https://a/v1", "https://a/v1/x", True, id="a path below"),
        pytest.param("https://a/v1", "https://a/v10", False, id="a path that begins like it"),
        pytest.param("https://a/v1", "https://a/v2", False, id="another path"),
        pytest.param("https://a/v1", "https://a/v1/../v2", False, id="a path that climbs out"),
        pytest.param("https://a/v1", "https://a/v1/%2e%2e/v2", False, id="a climb that is encoded"),
        pytest.param("https://a/v1", "https://a/v1/..%2fv2", False, id="an encoded slash"),
        pytest.param("https://a/v1", "https://a/v1/..;/v2", False, id="a climb with a parameter"),
        pytest.param("https://a/v1", "https://a/v1/%252e%252e/v2", False, id="encoded twice"),
        pytest.param("https://a/v1", "https://a/v1/b%25;..c", True, id="what only looks like it"),
        pytest.param("https://a/v1", "https://a/v1/..%5cv2", False, id="an encoded backslash"),
        pytest.param("https://a/v1", "https://a/v1\\..\\v2", False, id="backslashes"),
        pytest.param("https://a/v1", "https://a//v1/x", False, id="a path with two slashes"),
        pytest.param("https://a/v1", "https://a/v1//x", False, id="two slashes below it"),
        pytest.param("https://a", "https://a/x%2Fy", True, id="an encoded slash where all is allowed"),
        pytest.param("http://[::1]:80", "http://[0:0:0:0:0:0:0:1]/", True, id="one spelling of one address"),
        pytest.param("http://127.0.0.1", "http://2130706433/", False, id="an address as a number"),
        pytest.param("http://127.0.0.1", "http://0x7f.1/", False, id="an address in hex"),
        pytest.param("http://127.0.0.1", "http://0177.0.0.1/", False, id="an address in octal"),
        pytest.param("http://127.0.0.1", "http://①②⑦.⓪.⓪.①/", True, id="what is an address once it is read"),
        pytest.param("https://a.b", "https://a\u3002b/", True, id="a dot of another script"),
        pytest.param("https://a", "https://\u0430/", False, id="a Cyrillic letter"),
    ],
)  # fmt: skip
def test_a_place_is_one_host_and_what_is_below_its_path(place: str, url: str, is_in: bool) -> None:  # noqa: FBT001 - a table
    assert Place.parse(place).covers(URL(url)) is is_in


@pytest.mark.parametrize(
    "text",
    ["", "*", "a.b", "https://", "https://*", "https://*.a", "ftp://a", "https://u:p@a", "https://u@a",
     "https://a:0", "https://a:65536", "https://a?x", "https://a/#x", "https://a/%2e", "https://a/../b",
     "https://a//b", "https://a b", "https://a\n", "https://a\u0430", "https://[::1", "https:/a", "HTTPS://a"],
)  # fmt: skip
def test_what_can_be_read_in_two_ways_is_no_place(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a place; write https://host\[:port\]"):
        Place.parse(text)


@pytest.mark.parametrize(
    ("address", "is_reachable"),
    [
        pytest.param("93.184.216.34", True, id="the internet"),
        pytest.param("2606:2800:220:1::1", True, id="the internet over IPv6"),
        pytest.param("10.0.0.1", True, id="a cluster's service"),
        pytest.param("172.31.255.1", True, id="a private network"),
        pytest.param("192.168.1.1", True, id="a home network"),
        pytest.param("fd12::1", True, id="a unique local address"),
        pytest.param("127.0.0.1", False, id="this machine"),
        pytest.param("127.8.9.1", False, id="this machine under another number"),
        pytest.param("::1", False, id="this machine over IPv6"),
        pytest.param("0.0.0.0", False, id="what Linux takes for this machine"),
        pytest.param("0.1.2.3", False, id="this network"),
        pytest.param("::", False, id="no address"),
        pytest.param("169.254.169.254", False, id="the metadata of a cloud"),
        pytest.param("fd00:ec2::254", False, id="the metadata of a cloud over IPv6"),
        pytest.param("fd00:ec2::23", False, id="the keys of pods of a cloud"),
        pytest.param("fd20:ce::254", False, id="the metadata of another cloud over IPv6"),
        pytest.param("168.63.129.16", False, id="the host of a cloud"),
        pytest.param("169.254.1.1", False, id="the local link"),
        pytest.param("fe80::1", False, id="the local link over IPv6"),
        pytest.param("fe80::1%eth0", False, id="the local link with a zone"),
        pytest.param("100.64.0.1", False, id="a carrier's network"),
        pytest.param("224.0.0.1", False, id="many machines"),
        pytest.param("ff02::1", False, id="many machines over IPv6"),
        pytest.param("255.255.255.255", False, id="all machines"),
        pytest.param("240.0.0.1", False, id="nobody"),
        pytest.param("192.0.2.1", False, id="documentation"),
        pytest.param("198.18.0.1", False, id="benchmarks"),
        pytest.param("192.0.0.1", False, id="protocols"),
        pytest.param("fec0::1", False, id="a site's own"),
        pytest.param("::ffff:127.0.0.1", False, id="this machine, mapped"),
        pytest.param("::ffff:169.254.169.254", False, id="metadata, mapped"),
        pytest.param("::ffff:10.0.0.1", False, id="a private network, mapped"),
        pytest.param("::ffff:93.184.216.34", True, id="the internet, mapped"),
        pytest.param("::127.0.0.1", False, id="this machine, compatible"),
        pytest.param("::ffff:0:7f00:1", False, id="this machine, translated"),
        pytest.param("2002:7f00:1::", False, id="this machine by 6to4"),
        pytest.param("2002:a00:1::", False, id="a private network by 6to4"),
        pytest.param("64:ff9b::7f00:1", False, id="this machine by NAT64"),
        pytest.param("64:ff9b::a9fe:a9fe", False, id="metadata by NAT64"),
        pytest.param("64:ff9b::5db8:d822", True, id="the internet by NAT64"),
        pytest.param("64:ff9b:1::a00:1", False, id="a local NAT64"),
        pytest.param("2001:0:4136:e378:8000:63bf:80ff:fffe", False, id="this machine by Teredo"),
        pytest.param("2606::5efe:7f00:1", False, id="this machine by ISATAP"),
        pytest.param("2606::200:5efe:a00:1", False, id="a private network by ISATAP"),
    ],
)
def test_a_name_leads_to_the_internet_or_a_private_network_and_nowhere_else(
    address: str,
    is_reachable: bool,  # noqa: FBT001 - a table
) -> None:
    parsed = addresses.parse(address)
    assert parsed is not None
    assert addresses.is_reachable(parsed) is is_reachable
