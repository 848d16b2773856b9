"""Search spaces and plans of sweeps: what a user may write, and which trials come of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hpc.errors import ConfigError
from hpc.sweep import RayConfig, SearchConfig, parse_space, plan_trials
from hpc.sweep.session import require_room

SPACE = """
optim: {lr: {loguniform: [1.0e-5, 1.0e-3]}}
model.width: {grid: [96, 192]}
schedule:
  grid:
    steplr: {optim.schedule: step}
    cosine: {optim: {schedule: cosine}, warmup: 3}
"""


def space_of(text: str):
    return parse_space(yaml.safe_load(text))


def test_keys_of_a_space():
    space = space_of(SPACE)
    assert space.keys == ["optim.lr", "model.width", "optim.schedule", "warmup"]
    assert [d.kind for d in space.domains] == ["loguniform", "grid", "grid"]


def test_examples_meet_every_option_and_both_ends():
    values = [configuration.values for configuration in space_of(SPACE).examples()]
    assert {v["model.width"] for v in values} == {96, 192}
    assert {v["optim.lr"] for v in values} == {1e-5, 1e-3}
    assert {v["optim.schedule"] for v in values} == {"step", "cosine"}
    assert [v.get("warmup") for v in values] == [None, 3]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr: 3", "space.lr: 3 gives no values to try; give {grid: [a, b]}"),
        ("lr: {grid: []}", "space.lr: grid: [] is not a list of values"),
        ("lr: {grid: [1, 1]}", "has a value twice"),
        ("lr: {uniform: [2, 1]}", "is not a range; give {uniform: [low, high]} with low < high"),
        ("lr: {uniform: [a, 1]}", "is not a range"),
        ("lr: {loguniform: [0, 1]}", "its low end must be above 0"),
        ("lr: {randint: [1, 2.5]}", "are not whole numbers"),
        ("lr: {grid: {a: 1}}", "option a: 1 is not a mapping of keys"),
        ("{lr: {grid: [1]}, set: {grid: {a: {lr: 2}}}}", "space.set: sets lr, as space.lr does; keep one of them"),
    ],
)
def test_mistakes_in_a_space(text, said):
    with pytest.raises(ConfigError) as error:
        space_of(text)
    assert said in str(error.value)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ConfigError) as error:
        space_of("{a: 1, b: {uniform: [2, 1]}}")
    assert "space.a:" in str(error.value) and "space.b:" in str(error.value)


def test_plan_of_a_grid_has_every_combination_for_every_seed():
    space = space_of("{a: {grid: [1, 2, 3]}, b: {grid: [x, y]}}")
    trials = plan_trials(Path("/s"), space, [7, 8], SearchConfig())
    assert [trial.number for trial in trials] == list(range(12))
    assert len({trial.name for trial in trials}) == 12
    assert {(t.values["a"], t.values["b"], t.seed) for t in trials} == {
        (a, b, seed) for a in (1, 2, 3) for b in "xy" for seed in (7, 8)
    }
    assert trials[0].name == "a1-x-seed7" and trials[0].folder == Path("/s/trials/a1-x-seed7")
    assert trials[0].configuration == trials[1].configuration == "a1-x"


def test_draws_lie_in_their_range_with_few_digits_and_come_again():
    space = space_of(SPACE)
    search = SearchConfig(algorithm="random", samples=20, seed=3)
    trials = plan_trials(Path("/s"), space, [1], search)
    assert len(trials) == 80 and trials == plan_trials(Path("/s"), space, [1], search)
    rates = [trial.values["optim.lr"] for trial in trials]
    assert all(1e-5 <= rate <= 1e-3 and float(f"{rate:.4g}") == rate for rate in rates)
    assert sum(rate < 1e-4 for rate in rates) == pytest.approx(40, abs=15)
    assert trials != plan_trials(Path("/s"), space, [1], SearchConfig(algorithm="random", samples=20, seed=4))


def test_randint_has_both_ends():
    space = space_of("n: {randint: [1, 3]}")
    trials = plan_trials(Path("/s"), space, [1], SearchConfig(algorithm="random", samples=40))
    assert {trial.values["n"] for trial in trials} == {1, 2, 3} and len(trials) == 3


def test_an_empty_space_is_one_configuration():
    assert [t.name for t in plan_trials(Path("/s"), parse_space({}), [1, 2], SearchConfig())] == [
        "base-seed1",
        "base-seed2",
    ]


def test_names_are_names_of_files():
    configuration = parse_space({"path": {"grid": ["../a b/c", "../a_b/c"]}}).examples()
    assert all("/" not in c.name and not c.name.startswith(".") for c in configuration)
    assert configuration[0].name != configuration[1].name


@pytest.mark.parametrize(
    ("algorithm", "text", "seeds", "said"),
    [
        ("grid", "lr: {uniform: [0, 1]}", [1], "search.algorithm=grid: tries listed values only, not lr (uniform)"),
        ("pbt", "set: {grid: {a: {lr: 1}}}", [1], "search.algorithm=pbt: varies values, but the space has none"),
        ("grid", "lr: {grid: [1]}", [1, 1], "each once"),
        ("grid", "lr: {grid: [1]}", [], "must name at least one seed"),
    ],
)
def test_plans_that_cannot_be(algorithm, text, seeds, said):
    with pytest.raises(ConfigError) as error:
        plan_trials(Path("/s"), space_of(text), seeds, SearchConfig(algorithm=algorithm))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"ranks": 2, "cpus": 2}, "a trial takes 2 cores and 1 for the service (ray.service_cpus), and there are 2"),
        ({"ranks": 3, "cpus": 2, "service_cpus": 0}, "a trial takes 3 cores, and there are 2"),
        ({"ranks": 2, "cpus_per_trial": 1}, "is less than one core for each of ray.ranks=2"),
        ({"nodes": 2}, "ray.nodes=2: needs a Ray of several nodes"),
    ],
)
def test_a_trial_that_does_not_fit_is_told_before_ray_starts(keys, said):
    with pytest.raises(ConfigError) as error:
        require_room(RayConfig.parse(keys), service=True)
    assert said in str(error.value)


def test_two_ranks_and_a_service_on_their_cores_fit_two_cores():
    require_room(RayConfig(ranks=2, cpus=2, service_cpus=0), service=True)
    require_room(RayConfig(ranks=2, cpus=2), service=False)
