"""The real sources: the units of what they give."""

import os
import time

import psutil

from tq.broker.sources import real_sources


def test_the_real_sources_give_what_is_said_of_them() -> None:
    sources = real_sources()

    assert abs(sources.wall() - time.time() * 1_000) < 60_000
    assert 0 <= sources.draw() < 1
    assert sources.monotonic() <= sources.monotonic()


def test_the_memory_of_the_process_is_in_bytes() -> None:
    seen = psutil.Process(os.getpid()).memory_info().rss

    assert seen / 2 < real_sources().rss_bytes() < seen * 2
