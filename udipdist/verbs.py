"""The verbs, in pipeline order, for the command line and the Python interface. Nothing heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass

from hpc.config import Config
from udipdist import config as configs

GRAMMAR = "[CONFIG.yaml] [key=value ...]"


@dataclass(frozen=True)
class Verb:
    """A command: its configuration class, and the module with the function of its name and `preview`.

    A name of two words is a command of a group (udipdist interpret attention), and its function has the second word.
    `word` is the key whose value may be the first word, without its name (udipdist gwas-part 7 CONFIG.yaml), where that
    word is of the form `word_is`; otherwise it is the configuration, as of every verb.
    """

    name: str
    config: type[Config]
    module: str
    word: str | None = None
    word_is: str = r"[^=]+"

    @property
    def grammar(self) -> str:
        """What stands after the name."""
        return f"{self.word.upper()} {GRAMMAR}" if self.word else GRAMMAR

    @property
    def function(self) -> str:
        """The name of its function in the module."""
        return self.name.split()[-1].replace("-", "_")


VERBS = (
    Verb("simulate", configs.SimulateConfig, "udipdist.cohort.simulate"),
    Verb("ingest", configs.IngestConfig, "udipdist.volumes.ingest"),
    Verb("volumes", configs.VolumesConfig, "udipdist.volumes.convert"),
    Verb("train", configs.TrainConfig, "udipdist.training.verb"),
    Verb("embed", configs.EmbedConfig, "udipdist.training.embed"),
    Verb("grm", configs.GrmConfig, "udipdist.relatedness.verb"),
    Verb("gwas", configs.GwasConfig, "udipdist.gwas.scan.verb"),
    Verb("gwas-plan", configs.GwasPlanConfig, "udipdist.gwas.scan.phases"),
    Verb("gwas-part", configs.GwasPartConfig, "udipdist.gwas.scan.phases", word="part", word_is=r"\d[^=]*"),
    Verb("gwas-finish", configs.GwasFinishConfig, "udipdist.gwas.scan.phases"),
    Verb("export", configs.ExportConfig, "udipdist.sumstats.export"),
    Verb("loci", configs.LociConfig, "udipdist.loci.verb"),
    Verb("panel", configs.PanelConfig, "udipdist.loci.panel"),
    Verb("interpret attention", configs.AttentionConfig, "udipdist.interpret.attention"),
    Verb("interpret perturb", configs.PerturbConfig, "udipdist.interpret.perturb"),
    Verb("interpret saliency", configs.SaliencyConfig, "udipdist.interpret.saliency"),
    Verb("interpret gallery", configs.GalleryConfig, "udipdist.interpret.gallery"),
    Verb("interpret clusters", configs.ClustersConfig, "udipdist.analysis.clusters.verb"),
    Verb("probe", configs.ProbeConfig, "udipdist.analysis.probes.verb"),
    Verb("erase", configs.EraseConfig, "udipdist.analysis.erasure.verb"),
    Verb("phewas", configs.PhewasConfig, "udipdist.analysis.phewas.verb"),
    Verb("plot", configs.PlotConfig, "udipdist.report.plot"),
    Verb("report", configs.ReportConfig, "udipdist.report.page"),
    Verb("run", configs.RunConfig, "udipdist.pipeline"),
    Verb("compare", configs.CompareConfig, "udipdist.compare"),
    Verb("demo", configs.DemoConfig, "udipdist.demo"),
    Verb("sweep", configs.SweepConfig, "udipdist.sweep.verb"),
    Verb("sweep-demo", configs.SweepDemoConfig, "udipdist.sweep.demo"),
    Verb("inspect", configs.InspectConfig, "udipdist.inspection.verb", word="path"),
)
