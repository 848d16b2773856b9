"""Every verb's configuration: the reference manual. `udipdist VERB --help` prints it.

Lengths are in millimetres, positions in base pairs, times in seconds, unless a key says otherwise.
"""

from udipdist.config.association import NullConfig, NullOptions, Relatedness, SampleOptions, ScanOptions, VariantFilter
from udipdist.config.base import VerbConfig
from udipdist.config.clusters import ClustersConfig
from udipdist.config.cohort import BrainConfig, GenomeConfig, SimulateConfig, TraitConfig
from udipdist.config.compare import CompareConfig
from udipdist.config.erase import EraseConfig
from udipdist.config.genetics import (
    ExportConfig,
    GrmConfig,
    GwasConfig,
    GwasFinishConfig,
    GwasPartConfig,
    GwasPlanConfig,
    LociConfig,
    LociOptions,
    PanelConfig,
)
from udipdist.config.imaging import (
    DataConfig,
    EmbedConfig,
    EngineConfig,
    IngestConfig,
    OptimConfig,
    Resident,
    ScheduleConfig,
    TrainConfig,
    VolumesConfig,
)
from udipdist.config.interpret import AttentionConfig, GalleryConfig, PerturbConfig, SaliencyConfig
from udipdist.config.networks import CnnAeConfig, NetworkConfig, VitAeConfig, VitUdipConfig
from udipdist.config.phewas import PhewasConfig
from udipdist.config.probe import ProbeConfig
from udipdist.config.sweep import SweepConfig, SweepDemoConfig
from udipdist.config.whole import DemoConfig, InspectConfig, LaunchConfig, PlotConfig, ReportConfig, RunConfig

__all__ = [
    "AttentionConfig",
    "BrainConfig",
    "ClustersConfig",
    "CnnAeConfig",
    "CompareConfig",
    "DataConfig",
    "DemoConfig",
    "EmbedConfig",
    "EngineConfig",
    "EraseConfig",
    "ExportConfig",
    "GalleryConfig",
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
    "LociOptions",
    "NetworkConfig",
    "NullConfig",
    "NullOptions",
    "OptimConfig",
    "PanelConfig",
    "PerturbConfig",
    "PhewasConfig",
    "PlotConfig",
    "ProbeConfig",
    "Relatedness",
    "ReportConfig",
    "Resident",
    "RunConfig",
    "SaliencyConfig",
    "SampleOptions",
    "ScanOptions",
    "ScheduleConfig",
    "SimulateConfig",
    "SweepConfig",
    "SweepDemoConfig",
    "TrainConfig",
    "TraitConfig",
    "VariantFilter",
    "VerbConfig",
    "VitAeConfig",
    "VitUdipConfig",
    "VolumesConfig",
]
