"""Numbers of random draws from which a p-value comes."""

from __future__ import annotations

import pytest

from hpc.errors import ConfigError
from udipdist.config import AttentionConfig, PanelConfig

PANEL = {"loci": "l", "panel": "big40", "out": "o"}
ATTENTION = {"run_dir": "r", "store": "s", "out": "o"}


@pytest.mark.parametrize(
    ("config", "keys", "key"), [(PanelConfig, PANEL, "rotations"), (AttentionConfig, ATTENTION, "permutations")]
)
def test_so_few_that_no_p_could_be_small_are_refused(config, keys, key):
    assert getattr(config.parse(keys | {key: 19}), key) == 19  # p = 1 / 20
    with pytest.raises(ConfigError, match=f"{key}=18: with 18 no p could be as small as 0.05; type 19 or more"):
        config.parse(keys | {key: 18})
    assert PanelConfig.parse(PANEL | {"rotations": 0}).rotations == 0  # no chance level is asked for
    with pytest.raises(ConfigError, match="permutations=0"):
        AttentionConfig.parse(ATTENTION | {"permutations": 0})
