"""How much memory a process holds."""

from tq.worker.pools.memory import _peak_bytes, resident_bytes


def test_what_a_process_holds_grows_with_what_it_keeps() -> None:
    before = resident_bytes()
    kept = b"x" * 64 * 1024 * 1024

    assert resident_bytes() - before > len(kept) // 2


def test_the_peak_is_no_less_than_what_is_held() -> None:
    # The two are not counted at the same instant, nor to the page.
    assert _peak_bytes() > resident_bytes() * 0.8
