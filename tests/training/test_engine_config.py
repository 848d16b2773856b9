"""Keys of the engine that do not go together."""

from __future__ import annotations

import pytest

from hpc.errors import ConfigError
from udipdist.config import EngineConfig


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"offload": "cpu"}, "offload=cpu: needs engine.zero=1, 2 or 3"),
        ({"offload": "nvme", "zero": 2, "nvme_path": "/tmp"}, "offload=nvme: needs engine.zero=3, not 2"),
        ({"offload": "nvme", "zero": 3}, "nvme_path and offload=nvme: each needs the other"),
        ({"compile": True, "zero": 3}, "compile=true: cannot be used with engine.zero=3"),
        ({"offload": "cpu", "zero": 3, "nvme_path": "/tmp"}, "nvme_path and offload=nvme: each needs the other"),
    ],
)
def test_what_cannot_be_is_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        EngineConfig.parse(keys)
