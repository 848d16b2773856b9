"""Packages that only one verb needs, and that are installed with an extra of the project."""

from __future__ import annotations

import importlib.util

from hpc.errors import ConfigError


def require(who: str, module: str, extra: str, otherwise: str = "") -> None:
    """Raises ConfigError where `module`, which `who` needs, cannot be imported; it says what to install.

    `otherwise` is what to type to do without. The module is not imported.
    """
    if importlib.util.find_spec(module) is None:
        choice = f", or {otherwise}" if otherwise else ""
        raise ConfigError(f"{who} needs {module}; type pip install 'udipdist[{extra}]'{choice}")
