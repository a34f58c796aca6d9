from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import httpx2
import huggingface_hub.constants
import pytest
import torch
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)

from segzero_ml.errors import WeightsError
from segzero_ml.weights import check_finite, choose_device, locate, version_at

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"one")
    (path / "config.json").write_text("{}")
    return path


def test_a_directorys_version_is_a_hash_of_its_weights_alone(directory: Path) -> None:
    before = locate(directory)
    assert before.path == directory
    assert len(before.version) == 64
    (directory / "README.md").write_text("new")
    assert locate(directory) == before
    (directory / "model.safetensors").write_bytes(b"two")
    assert locate(directory).version != before.version


def test_pickled_weights_are_refused(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"only pytorch_model\.bin, which can run code"):
        locate(directory)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "processor_config.json"])
def test_weights_that_bring_their_own_code_are_refused(directory: Path, name: str) -> None:
    (directory / name).write_text(json.dumps({"auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(WeightsError, match="auto_map"):
        locate(directory)


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "\xff"])
def test_a_damaged_configuration_is_refused(directory: Path, content: str) -> None:
    (directory / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(WeightsError, match=r"config\.json cannot be read"):
        locate(directory)


def test_an_adapter_is_not_taken_for_a_model(directory: Path) -> None:
    (directory / "adapter_config.json").write_text("{}")
    with pytest.raises(WeightsError, match="adapter"):
        locate(directory)


def test_an_empty_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no safetensors"):
        locate(tmp_path)


@pytest.mark.parametrize("ref", ["/nowhere/at/all", "nowhere", "a/b/c", "../x/y"])
def test_what_is_neither_directory_nor_hub_id_is_refused(
    ref: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="There are no weights at"):
        locate(ref)


def test_weights_that_cannot_be_downloaded_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match="could not be fetched") as caught:
        locate("nobody/has-this-model")
    assert "tiny" in caught.value.remedy


def answered(kind: type[HfHubHTTPError], status: int) -> HfHubHTTPError:
    request = httpx2.Request("GET", "https://hub.test/some/model/config.json")
    return kind("The hub said no.", response=httpx2.Response(status, request=request))


@pytest.mark.parametrize(
    ("error", "message", "remedy"),
    [
        (answered(GatedRepoError, 403), "does not give out", "Accept the licence"),
        (answered(HfHubHTTPError, 401), "does not give out", "HF_TOKEN"),
        (answered(RepositoryNotFoundError, 404), "were not found", "Check the id"),
        (answered(RemoteEntryNotFoundError, 404), "lack a file", "format of transformers"),
        (answered(HfHubHTTPError, 503), "could not be fetched", "Check the network"),
        (OfflineModeIsEnabled("offline"), "could not be fetched", "Check the network"),
        (LocalEntryNotFoundError("offline"), "could not be fetched", "Check the network"),
        (httpx2.ReadTimeout("too slow"), "could not be fetched", "Check the network"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "could not be fetched", "network"),
        (RuntimeError("Data processing error"), "could not be fetched", "Check the network"),
        (OSError(errno.ENOSPC, "No space left"), "could not be stored", "free space"),
        (PermissionError(errno.EACCES, "Permission denied"), "could not be stored", "rights"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_whatever_stops_a_download_is_told_with_what_helps(
    error: Exception, message: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr("segzero_ml.weights.hf_hub_download", download)
    with pytest.raises(WeightsError, match=message) as caught:
        locate("some/model")
    assert remedy in caught.value.remedy
    assert "some/model" in caught.value.message
    assert caught.value.__cause__ is error


def cached(cache: Path, source: Path, hub_id: str) -> Path:
    """Lay out the hub's cache as if a model had been downloaded before."""
    folder = cache / f"models--{hub_id.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    return Path(shutil.copytree(source, folder / "snapshots" / COMMIT))


def test_weights_in_the_hubs_cache_are_found_and_named_by_their_commit(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    snapshot = cached(tmp_path / "cache", directory, "some/model")
    for revision in (None, COMMIT):
        weights = locate("some/model", revision)
        assert weights.version == COMMIT
        assert weights.path.resolve() == snapshot.resolve()


def test_the_version_is_told_without_fetching_more_than_the_configuration(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert version_at(directory) == locate(directory).version
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    snapshot = cached(tmp_path / "cache", directory, "some/model")
    (snapshot / "model.safetensors").unlink()
    assert version_at("some/model") == version_at("some/model", COMMIT) == COMMIT
    for ref in ("nobody/has-this-model", "nowhere"):
        with pytest.raises(WeightsError):
            version_at(ref)


def test_cached_weights_that_bring_code_are_refused_too(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    (directory / "config.json").write_text('{"auto_map": {}}')
    cached(tmp_path / "cache", directory, "some/model")
    with pytest.raises(WeightsError, match="auto_map"):
        locate("some/model")


def test_a_weight_that_is_not_finite_is_named() -> None:
    model = torch.nn.Linear(2, 2)
    check_finite(model, "here")
    model.bias.data[1] = float("inf")
    with pytest.raises(WeightsError, match="bias is not finite"):
        check_finite(model, "here")


def test_the_device_asked_for_is_taken() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device(None).type in {"cpu", "cuda"}
