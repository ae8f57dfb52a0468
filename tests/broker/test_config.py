"""The broker's settings: which addresses it may listen on, and which settings exclude each other."""

import pytest

from tq.broker.config import Address, BrokerSettings, check_exposure, is_loopback, parse_address
from tq.core.errors import ConfigError


@pytest.mark.parametrize(
    "text, address",
    [
        ("127.0.0.1:7766", Address("127.0.0.1", 7766)),
        ("localhost:0", Address("localhost", 0)),
        ("[::1]:65535", Address("::1", 65_535)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["", "7766", ":7766", "127.0.0.1", "127.0.0.1:", "h:65536", "h:-1", "::1:7766", "[h]:7766", "h:٣"]
)
def test_anything_else_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="listen must"):
        BrokerSettings(listen=text)


@pytest.mark.parametrize(
    "host, alone",
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True)]
    + [(host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.example.org")],
)
def test_only_loopback_is_known_to_stay_on_this_machine(host: str, alone: bool) -> None:
    assert is_loopback(host) is alone


def test_a_broker_on_loopback_needs_no_warning() -> None:
    assert check_exposure(BrokerSettings()) is None


def test_a_broker_beyond_this_machine_is_refused_with_the_reason_and_the_way_out() -> None:
    with pytest.raises(ConfigError) as caught:
        check_exposure(BrokerSettings(listen="0.0.0.0:7000"))

    for part in ("0.0.0.0:7000", "authenticates nobody", "127.0.0.1:7000", "--insecure"):
        assert part in str(caught.value)


def test_a_broker_told_to_be_insecure_warns() -> None:
    warning = check_exposure(BrokerSettings(listen="0.0.0.0:7000", insecure=True))

    assert warning is not None
    assert warning.startswith("INSECURE: 0.0.0.0:7000")


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"lease_ms": 3_999}, "lease_ms must be at least twice heartbeat_ms"),
        ({"frame_bytes_max": 524_287}, "frame_bytes_max must be at least twice payload_bytes_max"),
        ({"buffer_bytes_max": 4_194_303}, "buffer_bytes_max, for all connections"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        BrokerSettings(**changes)  # type: ignore[arg-type]
