"""A policy that the broker could not decode is refused where it is written."""

from typing import Any

import pytest

from tq.core.retry import RetryPolicy


@pytest.mark.parametrize("field", ["max_attempts", "backoff_ms", "backoff_max_ms"])
@pytest.mark.parametrize("value", [2.5, "5", True])
def test_a_field_of_another_type_is_refused(field: str, value: Any) -> None:
    # Else the broker answers protocol_violation and closes the connection that all callers of the process share.
    with pytest.raises(ValueError, match=field):
        RetryPolicy(**{"backoff_ms": 0, field: value})
