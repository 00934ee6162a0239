from ipaddress import ip_network

import pytest

from shared.webhook_url import LONGEST, address_allowed, fault, host_allowed, host_pattern

PUBLIC = ["8.8.8.8", "93.184.215.14", "2606:4700::1111", "2a00:1450:4001::200e"]
PRIVATE = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "100.127.255.255", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1",
    "192.88.99.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fec0::1", "fc00::1", "fd12:3456::1", "ff02::1", "ff0e::1", "2001:db8::1", "100::1",
    "5f00::1", "4000::1", "64:ff9b:1::808:808",
]  # fmt: skip
# The same private address inside IPv6: as such, mapped, by NAT64, 6to4 and Teredo.
INSIDE = {
    "127.0.0.1": ["::7f00:1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1", "2001:0:808:808:0:0:80ff:fffe"],
    "10.0.0.1": ["::a00:1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1", "2001:0:808:808:0:0:f5ff:fffe"],
    "100.64.0.1": ["::ffff:100.64.0.1", "64:ff9b::6440:1", "2002:6440:1::1"],
}
# Hosts that are this machine or a private network, in every spelling that some resolver or parser takes.
SPELLED = [
    "127.0.0.1", "127.0.0.1.", "2130706433", "2130706433.", "0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "0X7F000001",
    "127.1", "127.0.1", "017700000001", "0x7f.1", "0", "0.0.0.0", "255.255.255.255", "10.0.0.1", "172.16.0.1",
    "192.168.1.1", "169.254.169.254", "2852039166", "0xa9fea9fe", "100.64.0.1", "224.0.0.1", "240.0.0.1", "192.88.99.1",
    "198.18.0.1", "\uff11\uff12\uff17.\uff10.\uff10.\uff11", "127\u30020\u30020\u30021", "\u2460\u2461\u2466.0.0.1",
    "[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:169.254.169.254]",
    "[::127.0.0.1]", "[2002:7f00:1::1]", "[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]", "[2001:0:808:808:0:0:80ff:fffe]",
    "[fd00::1]", "[fc00::1]", "[fe80::1]", "[fec0::1]", "[ff02::1]", "[fd00:ec2::254]",
]  # fmt: skip
TRANSLATED = ["::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]


@pytest.mark.parametrize("address", [*PUBLIC, *TRANSLATED])
def test_global_addresses_are_allowed(address: str) -> None:
    assert address_allowed(address, [])


@pytest.mark.parametrize("address", PRIVATE)
def test_other_addresses_are_not(address: str) -> None:
    assert not address_allowed(address, [])


@pytest.mark.parametrize(("address"), [one for many in INSIDE.values() for one in many])
def test_an_address_inside_another_is_judged_itself(address: str) -> None:
    assert not address_allowed(address, [])


@pytest.mark.parametrize("address", PRIVATE)
def test_the_allow_list_wins(address: str) -> None:
    assert address_allowed(address, [ip_network("203.0.113.99/32"), ip_network(address)])


@pytest.mark.parametrize("address", INSIDE["10.0.0.1"][1:])
def test_an_allowed_address_is_allowed_inside_another(address: str) -> None:
    assert address_allowed(address, [ip_network("10.0.0.0/8")])
    assert not address_allowed(address, [ip_network("192.168.0.0/16")])


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com/hook?x=1&y=%20",
        "https://EXAMPLE.com:8443/",
        "HTTPS://example.com/",
        "https://8.8.8.8/",
        "https://[2606:4700::1111]/",
        "https://münchen.example/",
        "https://example.com/" + "a" * (LONGEST - 20),
    ],
)
def test_good_urls(url: str) -> None:
    assert fault(url, allow_http=False) is None


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("", "must be an https URL"),
        ("example.com/hook", "must be an https URL"),
        ("//example.com/hook", "must be an https URL"),
        ("http://example.com/", "must be an https URL"),
        ("ftp://example.com/", "must be an https URL"),
        ("file:///etc/passwd", "must be an https URL"),
        ("https://", "has no host"),
        ("https:///hook", "has no host"),
        ("https://:443/hook", "has no host"),
        ("https://user:password@example.com/", "must not hold a user name or password"),
        ("https://user@example.com/", "must not hold a user name or password"),
        ("https://@example.com/", "must not hold a user name or password"),
        ("https://example.com/#there", "must not have a fragment"),
        ("https://example.com:0/", "has port 0"),
        ("https://example.com:65536/", "is not a URL"),
        ("https://example.com:http/", "is not a URL"),
        ("https://[::1/", "is not a URL"),
        ("https://example.com/" + "a" * (LONGEST - 19), f"is longer than {LONGEST} characters"),
        ("https://example.com/a b", "contains characters that no URL has"),
        (" https://example.com/", "contains characters that no URL has"),
        ("https://example.com/\r\nX: y", "contains characters that no URL has"),
        ("https://exa\tmple.com/", "contains characters that no URL has"),
        ("https://example.com\\@127.0.0.1/", "contains characters that no URL has"),
        ("https://example.com/\x7f", "contains characters that no URL has"),
        ("https://example.com/\u3000", "contains characters that no URL has"),
        ("https://127.0.0.1/", "is an address on a private network"),
        ("https://169.254.169.254/latest/meta-data", "is an address on a private network"),
        ("https://[::1]:8443/", "is an address on a private network"),
        ("https://[::ffff:10.0.0.1]/", "is an address on a private network"),
        ("https://[fe80::1%25eth0]/", "is an address on a private network"),
    ],
)
def test_what_is_wrong_with_a_url(url: str, wrong: str) -> None:
    assert fault(url, allow_http=False) == wrong


def test_http_only_where_allowed() -> None:
    assert fault("http://example.com/", allow_http=True) is None
    assert fault("https://example.com/", allow_http=True) is None
    assert fault("ftp://example.com/", allow_http=True) == "must be an http or https URL"


def test_a_private_literal_in_an_allowed_network() -> None:
    allowed = [ip_network("10.0.0.0/8")]
    assert fault("https://10.1.2.3/", allow_http=False, allowed=allowed) is None
    assert fault("https://192.168.0.1/", allow_http=False, allowed=allowed) == "is an address on a private network"


@pytest.mark.parametrize("host", SPELLED)
def test_no_spelling_of_a_private_address_is_a_host(host: str) -> None:
    wrong = fault(f"https://{host}:8443/hook", allow_http=False)
    assert wrong in ("is an address on a private network", "has a number for a host")


@pytest.mark.parametrize("host", ["8.8.8.8.", "[2606:4700::1111]", "127.0.0.1.example", "0x7f.example", "1e100.net"])
def test_what_only_looks_like_one_is(host: str) -> None:
    assert fault(f"https://{host}/", allow_http=False) is None


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("hooks.example.com", True),
        ("HOOKS.Example.com.", True),
        ("hooks.example.com:8443", True),
        ("a.inner.example", True),
        ("a.b.inner.example", True),
        ("xn--strae-oqa.example", True),
        ("8.8.8.8", True),
        ("inner.example", False),
        ("evil-inner.example", False),
        ("evilhooks.example.com", False),
        ("hooks.example.com.evil.example", False),
        ("example.com", False),
        ("stra\u00dfe.example", False),  # strasse to some, xn--strae-oqa to others
        ("xn--strae-oqa.inner.exampl\u00e9", False),
        ("evil.example%2f.inner.example", False),
        ("[2606:4700::1111]", False),
    ],
)
def test_the_hosts_that_a_tenant_sends_to(host: str, allowed: bool) -> None:
    given = ("Hooks.example.com.", "*.inner.example", "xn--strae-oqa.example", "strasse.example", "8.8.8.8")
    patterns = [host_pattern(one) for one in given]
    assert host_allowed(f"https://{host}/x", patterns) is allowed
    assert host_allowed(f"https://{host}/x", None)
    assert not host_allowed(f"https://{host}/x", [])


@pytest.mark.parametrize(
    "pattern",
    ["", "*", "*.", ".", "a..b", "*.*.a", "a.*", "https://a", "a/b", "a:1", "a b", "-a", "a" * 64, "a\n", "b\u00fc"],
)
def test_what_is_no_host(pattern: str) -> None:
    with pytest.raises(ValueError, match="name of a host"):
        host_pattern(pattern)
