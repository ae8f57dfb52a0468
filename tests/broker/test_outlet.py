"""How what a batch has to say is put into frames."""

from tq.broker.outlet import in_frames
from tq.core.lifecycle import TaskState
from tq.core.outcome import TaskResult
from tq.core.times import Timestamp


def test_results_are_cut_into_frames_in_their_order_and_none_is_left_out() -> None:
    results = [
        TaskResult(bytes([n]) * 16, TaskState.COMPLETED, Timestamp(0), b"r" * size)
        for n, size in enumerate([10, 300_000, 300_000, 10, 600_000, 10])
    ]

    frames = in_frames(results, 1 << 20)

    assert [[result.id[0] for result in frame] for frame in frames] == [[0, 1], [2, 3], [4], [5]]
