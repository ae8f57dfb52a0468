"""Tests of bench.report and its tables: from single values to a document and to README.md."""

import json

import pytest

from bench.__main__ import exit_code
from bench.figures import FLOOR, FULL, QUICK, TQ, TQ_INTERVAL, Results, rows
from bench.machine import Machine
from bench.report import MARKS, Measurement, as_json, document, with_figures
from bench.systems.catalog import Subject
from bench.tables import GLANCE, of_subjects, peer_tables

CELERY = Subject("celery", "everysec")
HUEY = Subject("huey", "always")


@pytest.fixture
def measurement() -> Measurement:
    """Three rounds of tq and the floor, two of a peer, and one peer that failed."""
    results = Results()
    for one, bulk in ((2_000.0, 150_000.0), (1_000.0, 210_000.0), (1_500.0, 180_000.0)):
        results.add(TQ, {"one": one, "bulk": bulk, "result_p50": 1.5})
        results.add(FLOOR, {"one": 2 * one, "bulk": 300_000.0})
        results.add(TQ_INTERVAL, {"one": 5_000.0})
    results.add(CELERY, {"one": 1_234.0})
    results.add(CELERY, {"one": 1_236.0})
    results.fail(HUEY, "callers", "process 7 ended with exit code 1")
    machine = Machine(*(f"this {name}" for name in Machine._fields))
    return Measurement(results, machine, QUICK, "2026-11-24")


def lines(text: str, first: str) -> list[list[str]]:
    """The cells of the rows of tables that begin with a cell."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return [row for row in cells if row[0] == first]


def test_a_figure_is_the_median_of_the_rounds_beside_the_floors(measurement: Measurement) -> None:
    found = {row.figure.title: row for row in rows(measurement.results)}

    one = found["one caller at a time"]

    assert (one.tq, one.floor, one.ratio, one.verdict) == (1_500, 3_000, 0.5, "done")


def test_a_percentile_is_of_the_times_of_all_rounds() -> None:
    results = Results()
    for worst in (1.0, 1.0, 500.0):
        results.add(TQ, {"start": [1.0] * 99 + [worst]})

    assert results.value(TQ, "start_p99") == 1.0
    assert results.values(TQ, "start_p99")[-1] > 1.0
    assert results.value(TQ, "result_p99") is None


def test_a_run_fails_where_a_figure_is_below_its_bound_and_a_short_one_is_not_judged(
    measurement: Measurement, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Results()
    results.add(TQ_INTERVAL, {"one": 5_999.0})
    done = Results()
    done.add(TQ_INTERVAL, {"one": 6_000.0})

    assert (exit_code(results, FULL), exit_code(results, QUICK), exit_code(done, FULL)) == (1, 0, 0)
    assert capsys.readouterr().err == "below the bound: one caller at a time, interval\n"
    assert exit_code(measurement.results, QUICK) == 1, "a peer failed"


def test_another_durability_is_not_compared_with_the_floor(measurement: Measurement) -> None:
    found = {row.figure.title: row for row in rows(measurement.results)}

    interval = found["one caller at a time, interval"]

    assert (interval.tq, interval.floor, interval.verdict) == (5_000, None, "below the bound")


def test_what_was_not_measured_has_an_empty_cell_and_nobody_an_empty_row(measurement: Measurement) -> None:
    table = of_subjects("", measurement.results, GLANCE)

    assert [list(cells) for cells in table.rows] == [
        ["floor, sync", "3,000", "300,000", "", "", ""],
        ["tq, sync", "1,500", "180,000", "", "", "1.50"],
        ["tq, interval", "5,000", "", "", "", ""],
        ["Celery, everysec", "1,235", "", "", "", ""],
    ]


def test_a_table_of_nothing_is_left_out(measurement: Measurement) -> None:
    titles = [table.title for table in peer_tables(measurement.results)]

    assert titles == ["Enqueue", "Latency at 100 tasks a second"]


def test_the_document_has_one_title_the_settings_and_every_single_run(measurement: Measurement) -> None:
    text = document(measurement, "plot.svg")

    assert [line for line in text.splitlines() if line.startswith("# ")] == ["# Benchmarks"]
    assert "](plot.svg)" in text
    assert "`task_acks_late`" in text
    assert "  - one: 1,234, 1,236" in text
    assert "rounds in all:\n1." in text
    assert "{" not in text


def test_a_failure_is_told(measurement: Measurement) -> None:
    text = document(measurement, "plot.svg")

    assert "- Huey, always: callers: process 7 ended with exit code 1" in text
    assert json.loads(as_json(measurement))["failures"] == {
        "Huey, always": ["callers: process 7 ended with exit code 1"]
    }


def test_the_readme_gets_the_documents_figures_and_keeps_the_rest(measurement: Measurement) -> None:
    readme = f"# tq\n\nbefore\n{MARKS[0]}old figures\n{MARKS[1]}after\n"

    text = with_figures(readme, measurement)

    whole = document(measurement, "plot.svg")
    assert text.startswith("# tq\n\nbefore\n")
    assert text.endswith("after\n")
    assert "old figures" not in text
    assert lines(text, "tq, sync")[0] in lines(whole, "tq, sync")
    assert lines(text, "100 callers") == []
    assert [row[:5] for row in lines(whole, "one caller at a time")] == lines(text, "one caller at a time")
