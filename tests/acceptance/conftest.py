"""Every test here runs real processes; a failing one shows what they said."""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.acceptance.fleet import FLEETS, LIVE, Fleet
from tests.acceptance.guarded import GROWTH_MAX, Guarded

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.acceptance)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections += [(name, log) for fleet in LIVE for name, log in fleet.logs()]
    return report


@pytest.fixture
def fleet(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """A fleet over a daemon; over an embedded broker where a test asks for both, by `ON_BOTH`."""
    fleet = FLEETS[getattr(request, "param", "daemon")](tmp_path)
    try:
        yield fleet
    finally:
        fleet.close()


@pytest.fixture
def guarded(fleet: Fleet) -> Iterator[Guarded]:
    guarded = Guarded(fleet, fleet.broker())
    fleet.worker()
    guarded.serves()
    before = guarded.rss
    yield guarded
    guarded.serves()
    assert guarded.rss - before < GROWTH_MAX
    assert "Traceback" not in guarded.broker.log
    assert guarded.broker.terminate() == 0
