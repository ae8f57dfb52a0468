"""Many task names: one frame of them is a bounded change."""

from tests.engine.harness import Driver
from tq.core.ids import compose
from tq.core.task import TaskSpec
from tq.core.times import Timestamp
from tq.engine import commands as c


def test_a_frame_of_new_names_is_a_bounded_change() -> None:
    driver = Driver()
    for frame in range(4):
        specs = [TaskSpec(f"{'n' * 240}{frame:02}{number:06}", queue="q") for number in range(1_000)]
        driver.do(c.Enqueue(compose(Timestamp(driver.now), frame), specs, []))

    size = sum(len(key) + len(value or b"") for key, value in driver.last.writes.items())

    # The N row holds all names of its queue, and is written anew, whole, for each of the frame's names.
    assert size <= 512 * 1024
