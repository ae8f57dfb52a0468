"""Addresses: what is taken, and what an error says about the rest."""

import pytest
from hypothesis import given, strategies as st

from tq.core.errors import ConfigError
from tq.protocol.endpoints import Endpoint, check_url, parse_directory, parse_endpoints


@pytest.mark.parametrize(
    "url, endpoints",
    [
        ("tq://127.0.0.1:7766", [Endpoint("127.0.0.1", 7766)]),
        ("tq://localhost", [Endpoint("localhost", 7766)]),
        ("tq://localhost/", [Endpoint("localhost", 7766)]),
        ("tq://a:1,b:2", [Endpoint("a", 1), Endpoint("b", 2)]),
        ("tq://a, b:2", [Endpoint("a", 7766), Endpoint("b", 2)]),
        ("tq://a,b,a", [Endpoint("a", 7766), Endpoint("b", 7766)]),
        ("tq://[::1]:1", [Endpoint("::1", 1)]),
        ("tq://[fe80::1%eth0]", [Endpoint("fe80::1%eth0", 7766)]),
        ("tq://broker-1.example.org:65535", [Endpoint("broker-1.example.org", 65535)]),
    ],
)
def test_addresses_are_read_in_their_order(url: str, endpoints: list[Endpoint]) -> None:
    assert parse_endpoints(url) == endpoints


@pytest.mark.parametrize(
    "url, complaint",
    [
        ("", "starts with tq://"),
        ("127.0.0.1:7766", "starts with tq://"),
        ("http://a", "starts with tq://"),
        ("tq://", "a host is missing"),
        ("tq://a,,b", "a host is missing"),
        ("tq://:7766", "not host or host:port"),
        ("tq://::1", "write an IPv6 address in brackets"),
        ("tq://a:0", "a port is 1 to 65535; got '0'"),
        ("tq://a:65536", "a port is 1 to 65535; got '65536'"),
        ("tq://a:", "a port is 1 to 65535; got ''"),
        ("tq://a:http", "a port is 1 to 65535; got 'http'"),
        ("tq://a:²", "a port is 1 to 65535; got '²'"),
        ("tq://user@a", "not host or host:port"),
        ("tq://a/path", "not host or host:port"),
    ],
)
def test_an_error_says_what_is_wrong(url: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_endpoints(url)

    assert complaint in str(caught.value)


@given(st.text())
def test_any_text_is_addresses_or_a_config_error(text: str) -> None:
    try:
        endpoints = parse_endpoints("tq://" + text)
    except ConfigError:
        return

    assert parse_endpoints("tq://" + ",".join(map(str, endpoints))) == endpoints


@pytest.mark.parametrize(
    ("url", "directory"),
    [
        ("file:./tq-data", "./tq-data"),
        ("file:tq-data", "tq-data"),
        ("file:/var/lib/tq", "/var/lib/tq"),
        ("file:///var/lib/tq", "/var/lib/tq"),
        ("file:with space?and#marks", "with space?and#marks"),
        ("tq://127.0.0.1:7766", None),
        ("memory:", None),
    ],
)
def test_a_file_url_names_a_directory(url: str, directory: str | None) -> None:
    assert parse_directory(url) == directory


@pytest.mark.parametrize("url", ["file:", "file://", "file://host/data", "file:a\0b", "memory:", "redis://x"])
def test_what_names_no_broker_that_can_be_shared_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        check_url(url)


@pytest.mark.parametrize("url", ["file:./tq-data", "tq://127.0.0.1:7766"])
def test_what_names_one_is_taken(url: str) -> None:
    check_url(url)
