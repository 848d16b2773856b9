"""The configuration of clusters of SNP directions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from udipdist.config.base import Draws, NonNegative, Share, VerbConfig

DIRECTION, SUPPORT = "direction", "support"
PUBLISHED = "published"


class ClustersConfig(VerbConfig):
    """Lead SNPs that move the latents in the same direction: their tree, its support, and clusters; two trees compared.

    `udipdist interpret clusters sumstats=gwas loci=loci out=clusters`
    """

    sumstats: tuple[Path, ...] = Field(
        min_length=1, max_length=2, description="folder that gwas wrote, of all latents; or two, as [a, b], to compare"
    )
    loci: tuple[Path, ...] = Field(
        min_length=1,
        description="folder that loci wrote from it, or several, as [loci, loci_multivariate], of which loci that "
        "overlap count once; with two sumstats one each",
    )
    out: Path = Field(
        description="folder to write: clusters.tsv, names.tsv, similarity.tsv, tree.nwk, tree.png and .pdf; of two "
        "sumstats a folder of these for each, and how far they agree"
    )
    leads: Literal["loci", "all"] = Field(
        "loci", description="loci: the lead SNP of each locus; all: every lead SNP, also several of one locus"
    )
    method: Literal["whitened", "published"] = Field(
        "whitened",
        description="whitened: |cos| of the effects in units of their joint error; published: cos of the effects, with "
        "their signs",
    )
    trees: Draws = Field(500, gt=0, description="trees of the parametric bootstrap, from which support is computed")
    cut: Literal["direction", "support"] | None = Field(
        None,
        description="direction: a cluster is a clade in which all joined sides point the same way; support: the "
        "largest clades with enough support; default direction, of method=published support",
    )
    similar: Share = Field(
        0.5, description="cut=direction: least |cos|, free of noise, of two sides that are joined; chance may ask more"
    )
    support: Share = Field(0.9, description="share of the trees from which a clade counts as supported")
    match_bp: NonNegative = Field(
        250_000, description="two sumstats: loci that overlap, or whose lead SNPs are this close, are the same"
    )
    permutations: Draws = Field(1000, gt=0, description="two sumstats: shuffled trees, for the p-values")
    maps: tuple[Path, ...] = Field(
        (),
        description="folder that interpret perturb wrote with loci=, whose regions name the clusters; one a sumstats",
    )
    panel: tuple[Path, ...] = Field(
        (),
        description="folder that panel wrote with genes=, of loci= (of several the first), whose nearest genes name "
        "the SNPs; one a sumstats",
    )
    most: Annotated[int, Field(ge=3, le=5000)] = Field(
        1000, description="more lead SNPs than this are refused: time grows with their cube"
    )
    seed: NonNegative = Field(0, description="of the bootstrap and the permutations")

    @field_validator("sumstats", "loci", "maps", "panel", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | Path) else value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.sumstats) == 2:
            self._one_for_each("loci", self.loci)
            if self.sumstats[0] == self.sumstats[1] and self.loci[0] == self.loci[1]:
                raise ValueError(f"sumstats: {self.sumstats[0]} is listed twice with the same loci; name two analyses")
        for key in ("maps", "panel"):
            if getattr(self, key):
                self._one_for_each(key, getattr(self, key))
        if self.method == PUBLISHED and self.cut == DIRECTION:
            raise ValueError("cut=direction: needs effects in units of their error; leave it out, or method=whitened")
        unused = [key for key in ("match_bp", "permutations") if self._differs(key)]
        if len(self.sumstats) == 1 and unused:
            raise ValueError(f"{', '.join(unused)}: compares two sumstats; give sumstats=[a, b] or leave it out")
        if self._differs("similar") and self.cut_by == SUPPORT:
            raise ValueError("similar: is a key of cut=direction; leave it out")
        return self

    def _differs(self, key: str) -> bool:
        """True where a key has another value than its default, which a saved configuration also has."""
        return bool(getattr(self, key) != type(self).model_fields[key].default)

    def _one_for_each(self, key: str, given: tuple[Path, ...]) -> None:
        if len(given) != len(self.sumstats):
            raise ValueError(
                f"{key}: names {len(given)}, and sumstats names {len(self.sumstats)}; give one for each, in their order"
            )

    @property
    def cut_by(self) -> str:
        """The rule of the cut, where none is said the method's own."""
        return self.cut or (SUPPORT if self.method == PUBLISHED else DIRECTION)
