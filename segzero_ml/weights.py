"""Where weights come from: a directory or the Hugging Face hub, safetensors only.

Nothing here runs code that comes with weights: pickled checkpoints are never opened, and a
configuration that names its own Python classes is refused.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalTokenNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from segzero_ml.errors import WeightsError

if TYPE_CHECKING:
    import torch

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CHUNK = 1 << 20
_MAX_JSON_BYTES = 64 << 20  # tokenizers of large vocabularies take some ten MiB
_STORAGE_FAULTS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG}
)

MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja", "*.model")
"""What of a hub repository a model needs; leaves code and pickled weights alone."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights on this machine.

    Args:
        path: The directory that holds them.
        version: SHA-256 of the safetensors files, or the commit on the hub; hexadecimal.
    """

    path: Path
    version: str


def locate(
    ref: str | Path, revision: str | None = None, files: Sequence[str] = MODEL_FILES
) -> Weights:
    """Find weights, downloading them if need be, and check that they may be opened.

    Args:
        ref: An existing directory, or an id on the hub such as `Qwen/Qwen3-VL-4B-Instruct`.
        revision: Commit, tag or branch on the hub; ignored for a directory.
        files: Patterns of the files to fetch from the hub.

    Raises:
        WeightsError: They are not there, cannot be fetched, are not safetensors, or bring
            their own code.
    """
    path = Path(ref)
    if path.is_dir():
        check_directory(path)
        return Weights(path, _sha256(path))
    hub_id = _hub_id(ref)
    # The configuration first: gigabytes are not fetched only to be refused.
    commit = _commit(hub_id, revision)
    pinned = commit if _COMMIT.fullmatch(commit) else revision
    path = _download(
        hub_id,
        lambda: snapshot_download(hub_id, revision=pinned, allow_patterns=list(files)),
    )
    check_directory(path)
    return Weights(path, path.name)


def version_at(ref: str | Path, revision: str | None = None) -> str:
    """The `version` of the weights that `locate` would find now.

    Of a repository on the hub nothing but the configuration is fetched, and torch is not
    imported: for who only compares.

    Args:
        ref: As for `locate`.
        revision: As for `locate`.

    Raises:
        WeightsError: As for `locate`.
    """
    if Path(ref).is_dir():
        return locate(ref).version
    return _commit(_hub_id(ref), revision)


def _hub_id(ref: str | Path) -> str:
    if not _HUB_ID.fullmatch(str(ref)) or Path(ref).is_absolute():
        raise WeightsError(
            f"There are no weights at {ref}.",
            "Give a directory with model.safetensors, or an id on the Hugging Face hub.",
        )
    return str(ref)


def _commit(hub_id: str, revision: str | None) -> str:
    config = _download(hub_id, lambda: hf_hub_download(hub_id, "config.json", revision=revision))
    _check_json(config)
    return config.parent.name


def _download(hub_id: str, download: Callable[[], str]) -> Path:
    """Where a download went; whatever stops it becomes a WeightsError."""
    try:
        return Path(download())
    except Exception as error:  # the errors of the hub's libraries have no base in common
        raise _download_error(hub_id, error) from error


def _download_error(hub_id: str, error: Exception) -> WeightsError:
    detail = _first_line(error)
    refused = isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403)
    # In this order: a gated repository counts as one not found, and both as an OSError. One
    # that does not exist is answered with 401 to whoever is not logged in.
    if isinstance(error, GatedRepoError | LocalTokenNotFoundError):
        return _no_access(hub_id, detail)
    if isinstance(error, RepositoryNotFoundError | RevisionNotFoundError):
        return WeightsError(
            f"The weights {hub_id} were not found on the Hugging Face hub: {detail}",
            "Check the id and the revision. A private model needs a token: log in with "
            "`hf auth login`, or set HF_TOKEN.",
        )
    if isinstance(error, RemoteEntryNotFoundError):
        return WeightsError(
            f"The weights {hub_id} lack a file that a model has: {detail}",
            "Check that the id is that of a model in the format of transformers.",
        )
    if refused:
        return _no_access(hub_id, detail)
    if isinstance(error, OSError) and error.errno in _STORAGE_FAULTS:
        return WeightsError(
            f"The weights {hub_id} could not be stored on this machine: {detail}",
            "Check the free space and the rights of the Hugging Face cache (HF_HOME).",
        )
    return WeightsError(
        f"The weights {hub_id} could not be fetched from the Hugging Face hub: {detail}",
        "Check the network and try again, or fetch them on another machine and give their "
        "directory. The preset `tiny` needs no download.",
    )


def _no_access(hub_id: str, detail: str) -> WeightsError:
    return WeightsError(
        f"The Hugging Face hub does not give out the weights {hub_id}: {detail}",
        f"Accept the licence on https://huggingface.co/{hub_id}, then log in with "
        "`hf auth login` or set HF_TOKEN.",
    )


def check_directory(path: Path) -> None:
    """Check that a directory holds safetensors weights and no code of its own.

    Raises:
        WeightsError: It does not, or it is an adapter without its base model.
    """
    names = {entry.name for entry in path.iterdir()}
    if "adapter_config.json" in names:
        raise WeightsError(
            f"{path} holds an adapter, not a whole model.",
            "Merge it into its base model, or serve it through the registry.",
        )
    if not any(name.endswith(".safetensors") for name in names):
        pickled = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt")))
        found = f"only {', '.join(pickled)}, which can run code when opened" if pickled else "none"
        raise WeightsError(
            f"{path} holds no safetensors weights: {found}.",
            "Convert them with `save_pretrained` in a safe place, or use a safetensors release.",
        )
    for name in sorted(names):
        if name.endswith(".json"):
            _check_json(path / name)


def check_finite(model: torch.nn.Module, source: str | Path) -> None:
    """Check that no weight is infinite or not a number, as damaged files have them.

    Raises:
        WeightsError: One is.
    """
    for name, value in model.named_parameters():
        if not bool(value.isfinite().all()):
            raise WeightsError(
                f"The weights at {source} are damaged: {name} is not finite.",
                "Fetch or restore them again.",
            )


def _check_json(path: Path) -> None:
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise WeightsError(f"{path} is too large for a configuration file.", "Fetch it again.")
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} cannot be read: {error}.", "Fetch it again.") from error
    if isinstance(content, dict) and "auto_map" in content:
        raise WeightsError(
            f"{path} asks to run code that comes with the weights (auto_map); this is refused.",
            "Use a release whose model class is part of transformers.",
        )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path.glob("*.safetensors")):
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device asked for; else the first GPU, or the CPU without one."""
    import torch  # takes seconds, and is not needed to find weights

    if device is not None:
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
