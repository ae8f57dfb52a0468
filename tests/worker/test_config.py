"""The worker's settings: what -Q may say."""

import re

import pytest

from tq.core.errors import ConfigError
from tq.worker.config import QueueWeight, ServedQueues, WorkerSettings, parse_autoscale, parse_labels, parse_queues


@pytest.mark.parametrize(
    "text, queues",
    [
        ("default", [QueueWeight("default")]),
        ("high:4,default", [QueueWeight("high", 4), QueueWeight("default", 1)]),
        (" high:4 , default ", [QueueWeight("high", 4), QueueWeight("default", 1)]),
        ("eu::mail", [QueueWeight("eu:mail")]),
        ("eu::mail:3", [QueueWeight("eu:mail", 3)]),
        ("eu::4", [QueueWeight("eu:4")]),
        ("eu::::4:::5", [QueueWeight("eu::4:", 5)]),
        ("orders{shop}:2", [QueueWeight("orders{shop}", 2)]),
    ],
)
def test_queues_are_names_with_weights(text: str, queues: list[QueueWeight]) -> None:
    served = parse_queues(text)

    assert served == ServedQueues(queues, weighted=":" in text.replace("::", ""))


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("", "a queue name has"),
        ("a,", "a queue name has"),
        ("a b", "a queue name has"),
        ("a:0", "weight of 'a' must be 1 to 1000; got 0"),
        ("a:1001", "weight of 'a' must be 1 to 1000; got 1001"),
        ("a:2,b,a", "'a' is named twice"),
        (":3", "a queue name has"),
        *((text, f"{text!r} is neither NAME nor NAME:WEIGHT") for text in ("a:x", "a:-1", "a:4:1", "a:", "a:1.5")),
        ("eu:mail", "a colon of a name is written twice: eu::mail"),
    ],
)
def test_queues_that_cannot_be_meant_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        WorkerSettings(app="mail", queues=text)


def test_a_broker_that_no_url_names_is_refused() -> None:
    with pytest.raises(ConfigError, match="starts with tq://"):
        WorkerSettings(app="mail", url="127.0.0.1:7766")


def test_labels_are_keys_with_values() -> None:
    assert parse_labels(None) == {}
    assert parse_labels("zone=eu, gpu=a=100") == {"zone": "eu", "gpu": "a=100"}


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("", "'' is not of the form KEY=VALUE"),
        ("zone", "'zone' is not of the form KEY=VALUE"),
        ("zone=eu,zone=us", "'zone' is there twice"),
        ("zone=\x1b[1m", "printable"),
        (f"zone={'x' * 129}", "at most 128"),
        (",".join(f"k{number}=v" for number in range(17)), "at most 16; got 17"),
    ],
)
def test_what_are_no_labels_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        WorkerSettings(app="mail", labels=text)


def test_a_burst_does_not_reload() -> None:
    with pytest.raises(ValueError, match="reload: a burst ends when the queues are empty"):
        WorkerSettings(app="mail", burst=True, reload=True)


def test_a_range_of_children_is_two_numbers() -> None:
    assert parse_autoscale("2:8") == (2, 8)
    assert parse_autoscale("1:1") == (1, 1)


@pytest.mark.parametrize("text", ["", "4", "0:3", "4:2", "1:1001", "a:b", "-1:2"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="autoscale is MIN:MAX"):
        WorkerSettings(app="mail", pool="process", autoscale=text)


def test_only_children_that_are_not_counted_otherwise_scale() -> None:
    with pytest.raises(ValueError, match="it needs pool: process"):
        WorkerSettings(app="mail", autoscale="1:2")
    with pytest.raises(ValueError, match="takes the place of concurrency"):
        WorkerSettings(app="mail", pool="process", concurrency=2, autoscale="1:2")
