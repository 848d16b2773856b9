"""The configurations of the networks: a class each, chosen by `model.name`, and how a new one joins.

A class that derives from NetworkConfig is known under its `name` as soon as it is defined. One of an installed package
is found by its entry point in the group `udipdist.networks`: the entry point has the name of the network, and loads
the class.
"""

from __future__ import annotations

import importlib.metadata
import typing
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from hpc.config import TOLD, Config
from hpc.errors import some
from udipdist.config.base import Positive, Share

ENTRY_POINTS = "udipdist.networks"
DEFAULT = "vit_ae"  # the network where no name is given

_PATCH = "patch edge in voxels, one number or three; default 14x16x14 at 1 mm, else the 2^n over 32 mm"
_LATENT = "numbers in the bottleneck, the phenotypes"
_COVARIANCE = "weight of a penalty on correlated or collapsed latents (VICReg), within a micro-batch"
_SIZES: dict[
    str, dict[str, Any]
] = {  # the encoders of Dosovitskiy et al. 2021, with decoders of half the width or less
    "seed": {"width": 128, "depth": 12, "heads": 8, "decoder_width": 64, "decoder_depth": 12, "decoder_heads": 8},
    "S": {"width": 384, "depth": 12, "heads": 6, "decoder_width": 192, "decoder_depth": 4, "decoder_heads": 3},
    "B": {"width": 768, "depth": 12, "heads": 12, "decoder_width": 384, "decoder_depth": 4, "decoder_heads": 6},
    "L": {"width": 1024, "depth": 24, "heads": 16, "decoder_width": 512, "decoder_depth": 8, "decoder_heads": 8},
    "H": {"width": 1280, "depth": 32, "heads": 16, "decoder_width": 512, "decoder_depth": 8, "decoder_heads": 8},
}
_SIZED = {"mlp_ratio": 4.0}  # and of all named sizes


def _literals(annotation: Any) -> list[str | None]:
    """The values of a Literal, or of one that may be None."""
    if annotation is type(None):
        return [None]
    inner = typing.get_args(annotation)
    return [value for part in inner for value in _literals(part)] if inner else [annotation]


class NetworkConfig(Config):
    """What every network has. A network's own class declares `name: Literal["NAME"] = "NAME"` and its keys.

    network: where the network's class is, as "package.module:Class"; it is imported when one is built. has_attention:
    whether it encodes with a transformer, so that its attention can be looked at. penalties: its keys that weigh a
    penalty on the latents. fixed: keys that it lacks, which may all the same be given if they have this value.
    """

    network: ClassVar[str]
    has_attention: ClassVar[bool] = False
    penalties: ClassVar[tuple[str, ...]] = ()
    fixed: ClassVar[dict[str, Any]] = {}

    name: str = Field(description="network")
    patch: Positive | tuple[Positive, Positive, Positive] | None = Field(None, description=_PATCH)

    @classmethod
    def __pydantic_init_subclass__(cls, **keys: Any) -> None:
        super().__pydantic_init_subclass__(**keys)
        for form in cls.forms():
            other = _KNOWN.setdefault((cls.model_fields["name"].default, form), cls)
            if other.__module__ != cls.__module__ or other.__qualname__ != cls.__qualname__:
                raise TypeError(f"{cls.__qualname__}: there is a network of this name already, {other.__qualname__}")
            _KNOWN[cls.model_fields["name"].default, form] = cls

    @classmethod
    def forms(cls) -> list[str | None]:
        """The published forms that this is the configuration of; None: the network as it is here."""
        field = cls.model_fields.get("compat")
        return [None] if field is None else _literals(field.annotation)

    @classmethod
    def alternatives(cls) -> Mapping[str, type[Config]]:
        """The networks that there are, with those of installed packages."""
        if cls is not NetworkConfig:
            return {cls.__name__: cls}
        _load_installed()
        return {(name if None in own.forms() else f"compat={form}"): own for (name, form), own in _KNOWN.items()}

    @classmethod
    def refusal(cls, given: Mapping[str, Any]) -> str:
        """The message for keys that this network lacks."""
        name, keys = cls.model_fields["name"].default, ", ".join(key for key in cls.model_fields if key != "name")
        return f"model.name={name}: has no {_told(given)}; leave it out (this network has {keys})"

    @property
    def edges(self) -> tuple[int, int, int]:
        """The edges of a patch in voxels, of a resolved configuration."""
        assert self.patch is not None, "resolve the configuration first"
        return (self.patch,) * 3 if isinstance(self.patch, int) else self.patch


_KNOWN: dict[tuple[str, str | None], type[NetworkConfig]] = {}  # by name and published form


class VitAeConfig(NetworkConfig):
    """The vision transformer."""

    network = "udipdist.models.zoo.vit_ae:VitAutoencoder"
    has_attention = True
    penalties = ("variational", "covariance")

    name: Literal["vit_ae"] = Field("vit_ae", description="network: a vision transformer")
    size: Literal["seed", "S", "B", "L", "H"] | None = Field(
        None, description="a named size: default of width, depth, heads, mlp_ratio and of the decoder's keys"
    )
    width: Positive = Field(128, description="token width")
    depth: Positive = Field(4, description="encoder blocks (the paper: 12)")
    heads: Positive = Field(4, description="attention heads (the paper: 8)")
    mlp_ratio: float = Field(3.0, gt=0, description="hidden width of the MLP divided by the token width (the paper: 4)")
    decoder_width: Positive | None = Field(
        None, description="token width of the decoder (the paper: 64); default width"
    )
    decoder_depth: Positive = Field(1, description="decoder blocks (the paper: 12)")
    decoder_heads: Positive | None = Field(None, description="attention heads of the decoder; default heads")
    latent: Positive = Field(128, description=_LATENT)
    pool: Literal["mean", "attention", "cls"] = Field("mean", description="how a subject's tokens become one vector")
    variational: float = Field(0.0, ge=0, description="weight of the KL divergence from N(0, 1); 0: no sampling")
    covariance: float = Field(0.0, ge=0, description=_COVARIANCE)
    masked: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of a subject's tokens hidden from the encoder in training"
    )
    dropout: Share = Field(0.0, description="dropout in attention output and MLP")

    def sized(self) -> Self:
        """With what `size` says of the keys that were not given."""
        sized = {**_SIZES[self.size], **_SIZED} if self.size else {}
        return self.model_copy(update={key: value for key, value in sized.items() if key not in self.model_fields_set})


class VitUdipConfig(NetworkConfig):
    """The published vision transformer, faults included: one network, of which only these keys can be chosen."""

    network = "udipdist.models.zoo.vit_udip:PublishedVit"
    has_attention = True
    fixed: ClassVar[dict[str, Any]] = {**_SIZES["seed"], **_SIZED}

    name: Literal["vit_ae"] = Field("vit_ae", description="network: a vision transformer")
    compat: Literal["vit_udip"] = Field(
        "vit_udip", description="the published network as it is, faults included, to compare with"
    )
    dropout: Share = Field(0.0, description="dropout in attention output and MLP")

    @classmethod
    def refusal(cls, given: Mapping[str, Any]) -> str:
        """The message for keys that this network lacks."""
        return f"model.compat=vit_udip: is exactly one published network; leave out {_told(given)}"


class CnnAeConfig(NetworkConfig):
    """The convolutional network of UDIP."""

    network = "udipdist.models.zoo.cnn_ae:CnnAutoencoder"
    penalties = ("covariance",)

    name: Literal["cnn_ae"] = Field("cnn_ae", description="network: the convolutional one of UDIP")
    patch: Positive | tuple[Positive, Positive, Positive] | None = Field(
        None, description=_PATCH + "; only which voxels are read, those of patches with brain"
    )
    compat: Literal["udip"] | None = Field(None, description="udip: the published network as it is, to compare with")
    channels: Positive = Field(16, description="channels of the first level; each halving doubles them")
    levels: Positive = Field(4, description="halvings of the volume")
    latent: Positive = Field(128, description=_LATENT)
    covariance: float = Field(0.0, ge=0, description=_COVARIANCE)


def choose(value: Any) -> Any:
    """The network's own configuration of a mapping that names it.

    A key that it lacks is refused, unless it has the value that another network has by default: so it stands in the
    config.yaml of runs of before, when all networks had one class.
    """
    if not isinstance(value, Mapping):
        return value
    cls = _class_of(value.get("name", DEFAULT), value.get("compat"))
    lacking = {key: value[key] for key in value if key not in cls.model_fields and _is_of_another(key)}
    foreign = {key: own for key, own in lacking.items() if own not in _silent(cls, key)}
    kept = {key: own for key, own in value.items() if key not in lacking}
    if not foreign:
        return cls.model_validate(kept)
    mistakes = _mistakes(cls, kept)
    mistakes.insert(0, InitErrorDetails(type=PydanticCustomError(TOLD, cls.refusal(foreign)), loc=(), input=value))
    raise ValidationError.from_exception_data(cls.__name__, mistakes)


AnyNetwork = Annotated[NetworkConfig, BeforeValidator(choose), SerializeAsAny()]


def _class_of(name: Any, compat: Any) -> type[NetworkConfig]:
    if name not in _names():
        _load_installed()
        if name not in _names():
            raise _refused_choice("name", name, _names())
    forms = list(dict.fromkeys(form for _, form in _KNOWN if form))
    if compat is not None and compat not in forms:
        raise _refused_choice("compat", compat, forms)
    if (name, compat) not in _KNOWN:
        owner = next(known for known, form in _KNOWN if form == compat)
        message = (
            f"model.compat={compat}: is the published form of {owner}, not of {name}; type model.name={owner}, "
            "or leave one of the two out"
        )
        raise PydanticCustomError(TOLD, message)
    return _KNOWN[name, compat]


def _names() -> list[str]:
    return list(dict.fromkeys(name for name, _ in _KNOWN))


def _refused_choice(key: str, value: Any, allowed: list[str]) -> ValidationError:
    *most, last = map(repr, allowed)
    expected = f"{', '.join(most)} or {last}"
    details = InitErrorDetails(type="literal_error", loc=(key,), input=value, ctx={"expected": expected})
    return ValidationError.from_exception_data("model", [details])


def _mistakes(cls: type[NetworkConfig], tree: dict[str, Any]) -> list[InitErrorDetails]:
    try:
        cls.model_validate(tree)
    except ValidationError as error:
        return [
            InitErrorDetails(type=PydanticCustomError(item["type"], item["msg"]), loc=item["loc"], input=item["input"])
            for item in error.errors()
        ]
    return []


def _is_of_another(key: str) -> bool:
    return any(key in cls.model_fields for cls in _KNOWN.values())


def _silent(cls: type[NetworkConfig], key: str) -> list[Any]:
    """The values with which a key that this network lacks may all the same be given."""
    if key in cls.fixed:
        return [cls.fixed[key]]
    return [other.model_fields[key].get_default() for other in _KNOWN.values() if key in other.model_fields]


def _load_installed() -> None:
    """Import the configurations of networks of other packages, which makes them known."""
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        point.load()


def _told(given: Mapping[str, Any]) -> str:
    return some([f"model.{key}={value}" for key, value in given.items()])
