"""How a global batch is shared."""

from __future__ import annotations

import pytest

from hpc.engine import Batches
from hpc.errors import ConfigError


@pytest.mark.parametrize(
    ("total", "ranks", "micro", "expected"),
    [(16, 1, None, (16, 16, 1)), (16, 2, None, (16, 8, 1)), (16, 2, 2, (16, 2, 4)), (12, 3, 4, (12, 4, 1))],
)
def test_shares(total, ranks, micro, expected):
    assert Batches.split(total, ranks, micro) == Batches(*expected)


@pytest.mark.parametrize(
    ("total", "ranks", "micro", "message"),
    [
        (16, 3, None, "global_batch=16: cannot be shared by 3 ranks .* type global_batch=15 or global_batch=18"),
        (10, 2, 4, "2 ranks of micro_batch=4 .* type global_batch=8 or global_batch=16"),
        (2, 4, None, "type global_batch=4$"),
    ],
)
def test_a_remainder_is_refused(total, ranks, micro, message):
    with pytest.raises(ConfigError, match=message):
        Batches.split(total, ranks, micro)
