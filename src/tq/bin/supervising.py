"""Several worker processes under one: started, replaced when they die, and told to end.

Each is a fork, made before anything is imported or started that a fork would break.  It
is told what to do through a pipe, not by signals: a terminal, or a service manager, sends
its signals to every process at once, and one order must not count as two.

Invariant: a worker process never outlives its supervisor's wish: it stops, as after a
SIGTERM, when its pipe ends.
"""

import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from tq.bin.flags import EXIT_USAGE
from tq.core.errors import ConfigError, UsageError
from tq.worker.restarts import wait_after

_log = logging.getLogger("tq.worker")

# One that has lived so long did not die of its start: the next gets another first try.
_PROVEN_S = 30.0
FAILURES_OF_A_BURST_MAX = 3
"""So many early failures in a row, and a burst, which is to end, gives a seat up."""

_HEARD = (signal.SIGTERM, signal.SIGINT)

Run = Callable[[int, int], int]
"""What a process does: gets its number, from 1, and where to read orders; returns its exit code."""


class Seat:
    """The place of one worker process: who has it, or when the next one is due."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.pid: int | None = None
        self.orders = -1
        self.starts = 0
        self.failures = 0
        self.started_at = 0.0
        self.due_at: float | None = 0.0

    def ended(self, now: float) -> float:
        """Note that its process has died at *now*, and return in how many seconds the next one is due."""
        self.failures = 1 if now - self.started_at >= _PROVEN_S else self.failures + 1
        wait_s = wait_after(self.failures)
        self.due_at = now + wait_s
        return wait_s


class Supervisor:
    """Keeps *count* processes that each do *run*.

    With *burst* one that ends in good order is not replaced, nor one that was the last of
    `FAILURES_OF_A_BURST_MAX` to fail in a row.
    """

    def __init__(self, count: int, run: Run, *, burst: bool) -> None:
        self._run = run
        self._is_burst = burst
        self._seats = [Seat(number + 1) for number in range(count)]
        self._is_stopping = False
        self._code = 0

    def supervise(self) -> int:
        """Return the exit code, once all have ended: 0 if each did in good order, 1 if a burst gave a seat up.

        Raises:
            ConfigError: The system has no fork.
        """
        if not hasattr(os, "fork"):
            raise ConfigError("--processes needs a system with fork; start as many workers instead")
        # Taken by `sigtimedwait`, one after the other: no code of ours runs in a signal's handler.
        heard = {*_HEARD, signal.SIGCHLD}
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, heard)
        try:
            while self._is_busy:
                self._start_what_is_due()
                told = signal.sigtimedwait(heard, self._wait_s())
                if told is not None and told.si_signo in _HEARD:
                    self._stop()
                self._reap()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        return self._code

    @property
    def _is_busy(self) -> bool:
        """Whether a process runs, or is due to."""
        return any(seat.pid is not None or seat.due_at is not None for seat in self._seats)

    def _wait_s(self) -> float:
        due = [seat.due_at for seat in self._seats if seat.due_at is not None]
        # A wait without a limit is none; every signal cuts it short.
        return max(0.0, min([*due, time.monotonic() + 60.0]) - time.monotonic())

    def _start_what_is_due(self) -> None:
        now = time.monotonic()
        for seat in self._seats:
            if seat.due_at is not None and seat.due_at <= now:
                self._start(seat, now)

    def _start(self, seat: Seat, now: float) -> None:
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(write_end)
            for other in self._seats:
                if other.pid is not None:
                    os.close(other.orders)
            self._become(seat.number, read_end)
        os.close(read_end)
        seat.pid, seat.orders, seat.started_at, seat.due_at = pid, write_end, now, None
        seat.starts += 1

    def _become(self, number: int, orders: int) -> None:
        """Be a worker process to its end; never return to the code of the supervisor."""
        code = 1
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            code = self._run(number, orders)
        except UsageError as error:
            code = EXIT_USAGE
            _log.error("%s", error)
        except BaseException:  # noqa: BLE001 - the outermost of this process
            _log.exception("worker process %d failed", number)
        finally:
            logging.shutdown()
            os._exit(code)

    def _stop(self) -> None:
        """Pass the order to stop on: the first time in good order, then at once."""
        self._is_stopping = True
        for seat in self._seats:
            seat.due_at = None
            if seat.pid is not None:
                with suppress(OSError):
                    os.write(seat.orders, b"s")

    def _reap(self) -> None:
        for seat in self._seats:
            if seat.pid is None:
                continue
            pid, status = os.waitpid(seat.pid, os.WNOHANG)
            if pid:
                os.close(seat.orders)
                seat.pid = None
                self._ended(seat, pid, os.waitstatus_to_exitcode(status))

    def _ended(self, seat: Seat, pid: int, code: int) -> None:
        if self._is_stopping:
            # One that had not yet come to hear of signals dies of them, as it should.
            self._code = self._code or int(code not in (0, *(-number for number in _HEARD)))
            return
        if code == 0 and self._is_burst:
            return
        if code == EXIT_USAGE and seat.starts == 1:
            # Nor would the others, nor another try, start.
            self._stop()
            self._code = EXIT_USAGE
            return
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        wait_s = seat.ended(time.monotonic())
        if self._is_burst and seat.failures >= FAILURES_OF_A_BURST_MAX:
            seat.due_at = None
            self._code = 1
            _log.error(
                "worker process %d (number %d) ended: %s; it was failure %d in a row: "
                "no other is started in this burst, which fails once the others have ended",
                pid,
                seat.number,
                how,
                seat.failures,
            )
            return
        _log.warning("worker process %d (number %d) ended: %s; another starts in %g s", pid, seat.number, how, wait_s)
