"""How the process of a round is started: as it is, or by `accelerate launch` on several GPUs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import training_hooks
from backend.settings import Settings
from segzero_ml.errors import ConfigError

SHIPPED: Final = ("one-gpu", "multi-gpu", "zero2")
_SEVERAL: Final = "multi-gpu"


def launcher(settings: Settings, environment: Mapping[str, str] | None = None) -> list[str]:
    """What comes before the arguments of a round.

    Args:
        settings: Which configuration of accelerate, if any is wanted.
        environment: Names the GPUs that may be used; this process's by default.

    Raises:
        ConfigError: There is no such configuration.
    """
    python = [sys.executable, "-P", "-m"]
    number = gpus(os.environ if environment is None else environment)
    config = config_file(settings.train_launch or (_SEVERAL if number > 1 else None))
    if config is None:
        return [*python, "training_hooks.round"]
    launch = [*python, "accelerate.commands.launch", "--config_file", str(config)]
    if not re.search(r"^num_processes:", config.read_text("utf-8"), re.MULTILINE):
        launch += ["--num_processes", str(max(1, number))]
    return [*launch, "-m", "training_hooks.launched"]


def config_file(name: str | None) -> Path | None:
    """The file of a shipped configuration, or one of the user's own.

    Raises:
        ConfigError: There is no such file.
    """
    if name is None:
        return None
    if name in SHIPPED:
        return Path(training_hooks.__file__).parent / "accelerate" / f"{name}.yaml"
    path = Path(name)
    if not path.is_file():
        raise ConfigError(
            f"There is no configuration of accelerate at {name[:200]}.",
            f"Set SEGZERO_TRAIN_LAUNCH to a file, or to one of {', '.join(SHIPPED)}.",
        )
    return path.absolute()


def gpus(environment: Mapping[str, str], devices: Path = Path("/dev")) -> int:
    """How many NVIDIA GPUs a process may use, without loading torch.

    Args:
        environment: Its variables.
        devices: Where the devices are.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        named = [one for one in visible.split(",") if one.strip()]
        return 0 if "-1" in named else len(named)
    if not devices.is_dir():
        return 0
    return sum(1 for one in devices.iterdir() if re.fullmatch(r"nvidia\d+", one.name))
