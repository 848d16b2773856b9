"""Every verb's configuration: the reference manual. `udipdist VERB --help` prints it.

Lengths are in millimetres, positions in base pairs, times in seconds, unless a key says otherwise.
"""

from udipdist.config.base import VerbConfig
from udipdist.config.cohort import BrainConfig, GenomeConfig, SimulateConfig, TraitConfig
from udipdist.config.genetics import (
    ExportConfig,
    GrmConfig,
    GwasConfig,
    GwasFinishConfig,
    GwasPartConfig,
    GwasPlanConfig,
    LociConfig,
    NullConfig,
    PanelConfig,
)
from udipdist.config.imaging import (
    DataConfig,
    EmbedConfig,
    EngineConfig,
    IngestConfig,
    ModelConfig,
    OptimConfig,
    Resident,
    ScheduleConfig,
    TrainConfig,
    VolumesConfig,
)
from udipdist.config.whole import DemoConfig, InspectConfig, LaunchConfig, PlotConfig, ReportConfig, RunConfig

__all__ = [
    "BrainConfig",
    "DataConfig",
    "DemoConfig",
    "EmbedConfig",
    "EngineConfig",
    "ExportConfig",
    "GenomeConfig",
    "GrmConfig",
    "GwasConfig",
    "GwasFinishConfig",
    "GwasPartConfig",
    "GwasPlanConfig",
    "IngestConfig",
    "InspectConfig",
    "LaunchConfig",
    "LociConfig",
    "ModelConfig",
    "NullConfig",
    "OptimConfig",
    "PanelConfig",
    "PlotConfig",
    "ReportConfig",
    "Resident",
    "RunConfig",
    "ScheduleConfig",
    "SimulateConfig",
    "TrainConfig",
    "TraitConfig",
    "VerbConfig",
    "VolumesConfig",
]
