"""What a seed plans, and how a plan is cut down to what makes it fail."""

from tq.testing.scenario import Fault, Scenario, shrink


def numbers(scenario: Scenario) -> list[int]:
    return [event.number for event in scenario.events]


def test_a_seed_plans_one_scenario() -> None:
    assert Scenario.draw(7) == Scenario.draw(7)
    assert Scenario.draw(7) != Scenario.draw(8)


def test_the_faults_can_be_given() -> None:
    scenario = Scenario.draw(7, [Fault.STOP, Fault.DROP, Fault.DROP])

    assert scenario.faults == {Fault.STOP, Fault.DROP}
    assert sorted(event.at_s for event in scenario.events) == [event.at_s for event in scenario.events]


def test_an_event_is_the_same_whatever_else_is_planned() -> None:
    whole = Scenario.draw(7)

    part = whole.only([3, 8])

    assert part.events == (whole.events[3], whole.events[8])
    assert part.numbered(8).random() == whole.numbered(8).random()


def test_what_is_not_needed_for_a_failure_is_left_out() -> None:
    tried: list[Scenario] = []

    def fails(scenario: Scenario) -> bool:
        tried.append(scenario)
        return {4, 9} <= set(numbers(scenario)) and scenario.frame_tasks_max >= 2

    smallest = shrink(Scenario.draw(7), fails)

    assert numbers(smallest) == [4, 9]
    assert (smallest.workers, smallest.frame_tasks_max) == (1, 2)
    assert len(tried) < 100


def test_a_failure_that_needs_nothing_is_cut_down_to_nothing() -> None:
    smallest = shrink(Scenario.draw(7), lambda _: True)

    assert smallest.events == ()


def test_a_failure_that_needs_everything_is_left_as_it_is() -> None:
    whole = Scenario.draw(7)

    assert shrink(whole, lambda scenario: scenario == whole) == whole
