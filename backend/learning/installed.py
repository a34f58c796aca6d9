"""Whether what trains is installed: the extra `train`."""

from __future__ import annotations

from importlib.util import find_spec

from segzero_ml.errors import ConfigError


def can_train() -> bool:
    """Whether rounds can run here; imports nothing."""
    return all(find_spec(name) is not None for name in ("trl", "datasets", "accelerate"))


def check_can_train() -> None:
    """Refuse to take train jobs where they could only fail.

    Raises:
        ConfigError: The extra `train` is not installed.
    """
    if not can_train():
        raise ConfigError(
            "What trains is not installed here.",
            'Install it: pip install "segzero-label-studio[train]".',
        )
