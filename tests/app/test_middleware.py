"""Middleware, as an app declares it; what a worker makes of it is tested there."""

from tq.app.app import App
from tq.app.middleware import Middleware


class Timing(Middleware):
    """Overrides nothing."""


def test_an_app_hands_its_middleware_to_workers_in_order() -> None:
    outer, inner = Timing(), Timing()

    assert App(middleware=[outer, inner]).registry.middleware == (outer, inner)


def test_without_any_there_is_none() -> None:
    assert App().registry.middleware == ()
