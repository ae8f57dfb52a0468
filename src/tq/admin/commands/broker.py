"""The broker as a whole: is it there, and how is it doing."""

import time

from tq.admin.answer import Answer, Block, Facts, at, document, instant
from tq.admin.operator import Operated
from tq.protocol.messages import Stats

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def ping(*, operator: Operated) -> Answer:
    """Ask the broker whether it answers, its store included."""
    begun = time.perf_counter()
    pong = operator.client.ping()
    took_ms = round((time.perf_counter() - begun) * 1_000, 2)
    return Answer(
        {"server": pong.server, "clock_at": instant(pong.clock_ms), "round_trip_ms": took_ms},
        [f"{pong.server} answered in {took_ms} ms"],
    )


def stats(*, operator: Operated) -> Answer:
    """Show the broker's counts, totals and resources."""
    figures = operator.client.stats()
    return Answer(document(figures), _facts(figures))


def _facts(figures: Stats) -> list[Block]:
    free = figures.disk_free_bytes
    # A broker inside another program does not measure its memory, and one that was opened to be asked made no commits.
    has_committed = figures.commits_total > 0
    return [
        Facts(
            [
                ("server", figures.server),
                ("started at", at(figures.started_at)),
                ("store", figures.store),
                ("durability", figures.durability),
                ("memory", sized(figures.rss_bytes) if figures.rss_bytes else None),
                ("disk free", None if free is None else sized(free)),
            ]
        ),
        Facts(
            [
                ("connections", figures.connections),
                ("workers", figures.workers),
                ("queues", figures.queues),
                ("ready", figures.ready),
                ("running", figures.running),
                ("scheduled", figures.scheduled),
                ("dead", figures.dead),
            ]
        ),
        Facts(
            [
                ("enqueued in all", figures.enqueued_total),
                ("completed in all", figures.completed_total),
                ("failed attempts in all", figures.failed_total),
                ("lost deliveries in all", figures.lost_total),
                ("commits", figures.commits_total if has_committed else None),
                ("mean commit", f"{figures.commit_ms_mean:.3f} ms" if has_committed else None),
            ]
        ),
    ]


def sized(size: int) -> str:
    """Return a number of bytes for a reader: ``12.5 MiB``."""
    scaled = float(size)
    for unit in _UNITS[:-1]:
        if scaled < 1_024:
            return f"{size} B" if unit == "B" else f"{scaled:.1f} {unit}"
        scaled /= 1_024
    return f"{scaled:.1f} {_UNITS[-1]}"
