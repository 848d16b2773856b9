"""Whoever lacks an extra is told what to install, in one sentence."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from hpc.errors import ConfigError
from hpc.extras import require
from udipdist.verbs import VERBS

EXTRAS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_what_is_there_passes():
    require("sums", "math", extra="sums")


@pytest.mark.parametrize(
    ("name", "module", "keys", "message"),
    [
        ("simulate", "msprime", {"out": "o"}, "simulate needs msprime; type pip install 'udipdist[simulate]'"),
        (
            "train", "tensorboard", {"store": "s", "run_dir": "r"},
            "tensorboard=true needs tensorboard; type pip install 'udipdist[tensorboard]', or tensorboard=false",
        ),
        (
            "interpret saliency", "captum", {"run_dir": "r", "store": "s", "out": "o"},
            "interpret saliency needs captum; type pip install 'udipdist[saliency]'",
        ),
        (
            "sweep", "ray", {"store": "s", "genotypes": "g", "out": "o"},
            "sweep needs ray; type pip install 'udipdist[sweep]'",
        ),
        (
            "sweep", "optuna", {"store": "s", "genotypes": "g", "out": "o", "search": {"algorithm": "optuna"}},
            "search.algorithm=optuna needs optuna; type pip install 'udipdist[sweep]'",
        ),
    ],
)  # fmt: skip
def test_a_verb_says_what_to_install(name, module, keys, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    verb = next(verb for verb in VERBS if verb.name == name)
    code, config = import_module(verb.module), verb.config.parse(keys)
    for function in (getattr(code, verb.function), code.preview):
        with pytest.raises(ConfigError) as caught:
            function(config)
        assert str(caught.value) == message
    extra = message.partition("[")[2].partition("]")[0]
    assert any(package.startswith(module) for package in EXTRAS[extra])
    assert extra in EXTRAS["all"][0]


def test_the_machine_is_described_without_ray():
    program = "import sys; sys.modules['ray'] = None\nfrom hpc.__main__ import launchers\nprint(launchers())"
    told = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    assert "ray" in told.partition("not here:")[2]
