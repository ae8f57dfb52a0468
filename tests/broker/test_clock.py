"""The engine's clock against walls that jump and loops that are late."""

from tq.broker.clock import STEP_MS_MAX, EngineClock


class Time:
    """A wall and a monotonic clock, moved by hand."""

    def __init__(self) -> None:
        self.wall_ms = 1_000_000
        self.seconds = 0.0

    def clock(self) -> EngineClock:
        return EngineClock(lambda: self.wall_ms, lambda: self.seconds)

    def move(self, seconds: float, *, wall_ms: int | None = None) -> None:
        self.seconds += seconds
        self.wall_ms += round(seconds * 1_000) if wall_ms is None else wall_ms


def test_it_follows_the_wall_while_it_is_read_often() -> None:
    time = Time()
    clock = time.clock()

    for _ in range(100):
        time.move(0.25)
        clock.now()

    assert clock.now() == time.wall_ms


def test_time_that_passed_while_nobody_read_it_counts_for_a_step_only() -> None:
    time = Time()
    clock = time.clock()
    began = clock.now()

    time.move(60)

    assert clock.now() - began <= STEP_MS_MAX * 1.25


def test_after_a_stop_it_catches_up_with_the_wall_without_a_jump() -> None:
    time = Time()
    clock = time.clock()
    time.move(10)
    clock.now()

    steps = []
    for _ in range(200):
        time.move(0.25)
        before = clock.now()
        time.move(0.25)
        steps.append(clock.now() - before)

    assert max(steps) <= 313
    assert clock.now() == time.wall_ms


def test_a_wall_that_jumps_back_never_takes_it_back() -> None:
    time = Time()
    clock = time.clock()
    time.move(0.25, wall_ms=-3_600_000)

    readings = []
    for _ in range(100):
        readings.append(clock.now())
        time.move(0.25)

    assert readings == sorted(readings)
    assert readings[0] < readings[-1]


def test_a_wall_that_jumps_ahead_is_followed_slowly() -> None:
    time = Time()
    clock = time.clock()
    began = clock.now()

    time.move(0.25, wall_ms=3_600_000)

    assert clock.now() - began <= 313


def test_a_run_never_begins_before_what_the_last_one_knew() -> None:
    time = Time()
    clock = time.clock()

    clock.begin(time.wall_ms + 5_000)

    assert clock.now() == time.wall_ms + 5_000
