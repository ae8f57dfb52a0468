"""The table of states: complete, and with no way that its words rule out."""

import pytest

from tq.core.lifecycle import TERMINAL, TRANSITIONS, Step, TaskState, after, diagram


def test_every_state_is_reached_from_the_beginning() -> None:
    reached: set[TaskState | None] = {None}
    for _ in TaskState:
        reached |= {target for (state, _), target in TRANSITIONS.items() if state in reached}

    assert reached == {None, *TaskState}


def test_every_step_leads_somewhere() -> None:
    assert {step for _, step in TRANSITIONS} == set(Step)


def test_a_terminal_state_is_left_by_a_redrive_only() -> None:
    ways = {(state, step) for state, step in TRANSITIONS if state in TERMINAL}

    assert ways == {(TaskState.DEAD, Step.REDRIVE), (TaskState.DEAD, Step.FORGET)}
    assert TRANSITIONS[TaskState.DEAD, Step.FORGET] is None


def test_what_is_not_terminal_can_go_on() -> None:
    assert {state for state in TaskState if any(from_ is state for from_, _ in TRANSITIONS)} >= {*TaskState} - TERMINAL


@pytest.mark.parametrize("state", [None, *TaskState])
@pytest.mark.parametrize("step", list(Step))
def test_only_the_ways_of_the_table_exist(state: TaskState | None, step: Step) -> None:
    if TRANSITIONS.get((state, step)) is not None:
        assert after(state, step) is TRANSITIONS[state, step]
    else:
        with pytest.raises(KeyError):
            after(state, step)


def test_the_diagram_draws_every_way() -> None:
    lines = diagram().splitlines()

    assert lines[0] == "stateDiagram-v2"
    assert "    [*] --> ready: enqueue" in lines
    assert "    running --> dead: give up" in lines
    assert "    dead --> [*]: retention" in lines
    assert "    running --> [*]: purge" in lines
    assert len(lines) == 1 + len(TRANSITIONS) + len(TERMINAL)
