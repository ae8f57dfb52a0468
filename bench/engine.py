"""The engine alone: microseconds and rows for the life of a task, without store, wire or worker.

    python -m bench.engine [tasks]

Frames of 500 are enqueued, handed out and settled, over rows in memory.  Only the calls
of the engine are timed; its reads of rows in memory are part of them.
"""

import sys
from time import perf_counter, time
from typing import Any

from tq.core.ids import compose
from tq.core.outcome import Done
from tq.core.task import NewTask, TaskSpec
from tq.core.times import MINUTE, Timestamp
from tq.core.worker import WorkerInfo
from tq.engine import commands as c
from tq.engine.changes import Changes
from tq.engine.engine import Engine, EngineSettings
from tq.store.memory import MemoryStore

FRAME = 500
PAYLOAD = bytes(100)
SESSION = b"w" * 16
PHASES = ("enqueue", "hand out", "settle", "expire")


class Broker:
    """An engine over rows in memory, with the seconds and rows of each phase."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.engine = Engine(self.store, EngineSettings(), lambda: 0.5)
        changes, self.now = self.engine.restore(int(time() * 1_000))
        self.store.commit(changes.writes)
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.rows = dict.fromkeys(PHASES, 0)

    def do(self, *commands: c.Command[Any], dispatch: bool = False, phase: str | None = None) -> Changes:
        began = perf_counter()
        changes = self.engine.changes()
        for command in commands:
            self.engine.apply(command, self.now, changes)
        if dispatch:
            self.engine.dispatch(changes)
        self.engine.seal(self.now, changes)
        if phase is not None:
            self.seconds[phase] += perf_counter() - began
            self.rows[phase] += len(changes.writes)
        self.store.commit(changes.writes)
        return changes


def live(tasks: int, *, keeps: bool) -> Broker:
    """Let *tasks* live in a new broker, and their results expire if they are kept."""
    broker = Broker()
    spec = TaskSpec("t", "q", result_ttl_ms=MINUTE if keeps else 0)
    broker.do(c.Register(SESSION, SESSION, WorkerInfo("w", "host", 1, "async", 1, ["t"]), []))
    broker.do(c.Subscribe(SESSION, [("q", 1)], weighted=False), c.SetWindow(SESSION, FRAME, 1 << 30))
    for number in range(0, tasks, FRAME):
        ids = [compose(Timestamp(broker.now), number + each) for each in range(FRAME)]
        frame = c.Enqueue(
            compose(Timestamp(broker.now), tasks + number), [spec], [NewTask(each, 0, PAYLOAD) for each in ids]
        )
        broker.do(frame, phase="enqueue")
        handed_out = broker.do(dispatch=True, phase="hand out")
        (delivery,) = handed_out.deliveries
        result = b"result" if keeps else None
        done = [Done(delivery.token, index, result) for index in range(len(delivery.records))]
        broker.do(c.Settle(SESSION, done, []), phase="settle")
    broker.now += 2 * MINUTE
    broker.do(c.Beat(SESSION, 1))
    while keeps and broker.engine.next_tick(broker.now) <= broker.now:
        broker.do(c.Tick(), phase="expire")
    return broker


def main() -> None:
    tasks = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    tasks -= tasks % FRAME
    print(f"{tasks} tasks in frames of {FRAME}, {len(PAYLOAD)} bytes of payload; per task:")
    for keeps in (False, True):
        broker = live(tasks, keeps=keeps)
        parts = [
            f"{phase} {broker.seconds[phase] * 1e6 / tasks:.2f} us, {broker.rows[phase] / tasks:.2f} rows"
            for phase in PHASES
            if broker.rows[phase]
        ]
        seconds, rows = sum(broker.seconds.values()), sum(broker.rows.values())
        print(f"result {'kept' if keeps else 'off '}: {seconds * 1e6 / tasks:.2f} us, {rows / tasks:.2f} rows")
        for part in parts:
            print(f"    {part}")


if __name__ == "__main__":
    main()
