"""What hpc uses of libraries beyond what they document is still there. Where it is gone, this says what, and for whom.

Several would fail without a word: an attribute that is set and that nobody reads any more. The texts are looked for in
the files that are installed; nothing is imported.
"""

from __future__ import annotations

from importlib.metadata import distribution

import pytest

_ENGINE, _ZERO = "deepspeed/runtime/engine.py", "deepspeed/runtime/zero/"
_AGENT = "torch/distributed/elastic/agent/server/"
_NAMES = [
    # who, library, file, text
    ("hpc.engine", "deepspeed", _ENGINE, "self.torch_autocast_z0_gradscaler.unscale_(self.optimizer)"),
    ("hpc.engine", "deepspeed", _ENGINE, "self.torch_autocast_z0_gradscaler.step(self.optimizer)"),
    ("hpc.engine", "deepspeed", _ENGINE, "self.checkpoint_engine.load("),
    ("hpc.engine", "deepspeed", _ENGINE, "self.checkpoint_engine.save("),
    ("hpc.engine", "deepspeed", _ENGINE, "self.checkpoint_engine.makedirs("),
    ("hpc.engine", "deepspeed", _ENGINE, "self._copy_recovery_script("),
    ("hpc.engine", "deepspeed", _ENGINE, "return self._config.load_universal_checkpoint"),
    ("hpc.engine", "deepspeed", _ZERO + "stage_1_and_2.py", "def override_loss_scale(self, loss_scale)"),
    ("hpc.engine", "deepspeed", _ZERO + "stage3.py", "def override_loss_scale(self, loss_scale)"),
    ("hpc.engine", "deepspeed", "deepspeed/ops/__init__.py", '== "__compatible_ops__"'),
    ("hpc.scaling", "deepspeed", _ENGINE, "overflow = self.optimizer.overflow"),
    ("hpc.ema", "deepspeed", _ZERO + "partition_parameters.py", "param.ds_shape = param.shape"),
    ("hpc.ema", "deepspeed", _ZERO + "partition_parameters.py", "param.ds_tensor = partitioned_tensor"),
    ("hpc.universal", "deepspeed", "deepspeed/checkpoint/ds_to_universal.py", "def main(args):"),
    ("hpc.universal", "deepspeed", "deepspeed/checkpoint/ds_to_universal.py", "torch.load("),
    ("hpc.universal", "deepspeed", "deepspeed/utils/tensor_fragment.py", "class fragment_address"),
    ("hpc.universal", "deepspeed", "deepspeed/runtime/fp16/loss_scaler.py", "class DynamicLossScaler"),
    ("hpc.torchrun", "torch", "torch/distributed/launcher/api.py", "agent = LocalElasticAgent("),
    ("hpc.torchrun", "torch", _AGENT + "api.py", "self._start_workers(worker_group)"),
    ("hpc.torchrun", "torch", _AGENT + "api.py", "self._monitor_workers(self._worker_group)"),
    ("hpc.torchrun", "torch", _AGENT + "api.py", "if self._remaining_restarts > 0:"),
    ("hpc.torchrun", "torch", _AGENT + "local_elastic_agent.py", "def _start_workers(self, worker_group"),
    ("hpc.sweep.search", "ray", "ray/tune/schedulers/async_hyperband.py", "self._brackets = ["),
    ("hpc.sweep.search", "ray", "ray/tune/schedulers/async_hyperband.py", "def on_result(self, trial"),
    ("hpc.sweep.session", "ray", "ray/_private/worker.py", 'kwargs.pop("_temp_dir"'),
    ("hpc.sweep.table", "ray", "ray/tune/utils/callback.py", "isinstance(c, TrialProgressCallback)"),
    ("hpc.sweep.table", "ray", "ray/tune/experiment/trial.py", "self.run_metadata.num_failures"),
    ("hpc.sweep.driver", "ray", "ray/tune/tune.py", "signal.signal(signal.SIGUSR1"),
]


@pytest.mark.parametrize(("who", "library", "file", "text"), _NAMES)
def test_a_private_name_is_still_there(who, library, file, text):
    installed = distribution(library)
    path = installed.locate_file(file)
    said = path.read_text(encoding="utf-8") if path.exists() else ""
    assert text in said, f"{who} relies on {text!r} in {file}, which {library} {installed.version} has no longer"


def test_a_program_forked_by_a_server_still_calls_what_is_to_run_at_exit():
    import atexit

    assert callable(atexit._run_exitfuncs), "hpc.warm relies on it"


def test_torch_still_works_on_lists_of_tensors_at_once():
    import torch

    names = ("_foreach_mul_", "_foreach_lerp_")
    assert [name for name in names if not hasattr(torch, name)] == [], "hpc.scaling and hpc.ema rely on them"
