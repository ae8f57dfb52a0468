"""Settings files that nobody should write: an error, never a traceback."""

from pathlib import Path

import pytest

from tq.bin.settings import load
from tq.broker.config import BrokerSettings
from tq.core.errors import ConfigError


@pytest.mark.parametrize("text", ['broker: {data: "a\\0b"}', "[" * 20_000])
def test_it_is_refused_with_its_reason(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tq.yml"
    file.write_text(text)

    with pytest.raises(ConfigError):
        load("broker", BrokerSettings, {}, {}, file)
