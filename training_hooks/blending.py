"""Keeps a share of what a round learnt: a point between the base and the end of training.

A model that was fine-tuned is good at the new and has lost some of the old; on the straight line
from the base to it both are often better than at either end (WiSE-FT, arXiv 2109.01903). For a
LoRA adapter that line is its alpha.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from segzero_ml.adapter_files import CONFIG_FILE, TENSORS_FILE
from segzero_ml.durable import make_folder, replace_file


def blended(adapter: Path, share: float, into: Path) -> Path:
    """Make an adapter that changes the base by a share of what another one does.

    Args:
        adapter: Folder of the other one.
        share: In (0, 1]; with 1 nothing is made.
        into: Where the new one's folder is put, under the same name.

    Returns:
        Its folder, or the given one.
    """
    if share == 1:
        return adapter
    made = into / adapter.name
    make_folder(made)
    shutil.copyfile(adapter / TENSORS_FILE, made / TENSORS_FILE)
    config = json.loads((adapter / CONFIG_FILE).read_bytes())
    config["lora_alpha"] *= share
    replace_file(made / CONFIG_FILE, json.dumps(config, indent=2).encode())
    return made
