"""Versions on disk: published whole, promoted and rolled back, refused when damaged."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from segzero_ml.adapter_files import CONFIG_FILE, TENSORS_FILE
from segzero_ml.errors import InputError, RegistryError, WeightsError
from segzero_ml.lineage import Lineage
from segzero_ml.registry import BASE, Registry
from segzero_ml.versions import MANIFEST, Golden, VersionInfo
from tests.segzero_ml.adapter_samples import INFO, RANK, edit_tensors, write_adapter


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models" / "label-studio-7")


def publish(registry: Registry, tmp_path: Path, seed: int, info: VersionInfo = INFO) -> str:
    return registry.publish(write_adapter(tmp_path / f"adapter{seed}", seed=seed), info).id


def test_without_a_folder_there_are_no_versions_and_the_base_serves(registry: Registry) -> None:
    assert registry.versions() == ()
    assert registry.champion() is None
    assert registry.damaged() == ()
    assert not registry.folder.exists()


def test_a_published_version_can_be_read_back_and_does_not_serve_yet(
    registry: Registry, tmp_path: Path
) -> None:
    golden = Golden("the red star", b"png", "<think>")
    info = VersionInfo("tiny", "b" * 40, "r", "s", {"n_acc": 1}, (golden,))
    version = registry.publish(write_adapter(tmp_path / "adapter"), info)
    assert Registry(registry.folder).versions() == (version,)
    assert version.info.golden == (golden,)
    assert version.info.figures == {"n_acc": 1}
    assert registry.verify(version).rank == RANK
    assert registry.champion() is None
    assert {path.name for path in version.folder.iterdir()} == {
        CONFIG_FILE,
        TENSORS_FILE,
        MANIFEST,
    }


def test_versions_come_newest_first_under_ids_that_are_safe_names(
    registry: Registry, tmp_path: Path
) -> None:
    ids = [publish(registry, tmp_path, seed) for seed in range(11)]
    assert [version.id for version in registry.versions()] == ids[::-1]
    assert all(i.replace("-", "").replace("_", "").isalnum() and i.isascii() for i in ids)
    assert [version.number for version in registry.versions()] == list(range(11, 0, -1))


def test_publishing_the_same_again_gives_the_same_version(
    registry: Registry, tmp_path: Path
) -> None:
    first = publish(registry, tmp_path, 1)
    assert publish(registry, tmp_path, 1) == first
    assert publish(registry, tmp_path, 1, VersionInfo("tiny", "a" * 64, round="r2")) != first
    assert len(registry.versions()) == 2


def test_rolling_back_goes_further_back_each_time(registry: Registry, tmp_path: Path) -> None:
    first, second, third = (publish(registry, tmp_path, seed) for seed in range(3))
    for version in (first, second, third):
        assert registry.promote(version).id == version
        champion = registry.champion()
        assert champion is not None
        assert champion.id == version
    assert registry.lineage() == Lineage(third, (second, first, None))
    for expected in (second, first):
        back = registry.rollback()
        assert back is not None
        assert back.id == expected
        assert registry.champion() == back
    assert registry.rollback() is None
    assert registry.champion() is None
    with pytest.raises(RegistryError, match="nothing to go back to"):
        registry.rollback()


def test_where_nothing_was_published_going_back_makes_no_folder(registry: Registry) -> None:
    for to in (None, BASE, "v1-00000000"):
        with pytest.raises(RegistryError, match="nothing to go back to"):
            registry.rollback(to)
    assert not registry.folder.exists()


def test_a_dry_run_of_going_back_says_what_would_serve_and_changes_nothing(
    registry: Registry, tmp_path: Path
) -> None:
    first, second = (publish(registry, tmp_path, seed) for seed in range(2))
    registry.promote(first)
    registry.promote(second)
    before = registry.lineage()
    would = registry.rollback(dry_run=True)
    assert would is not None
    assert would.id == first
    assert registry.lineage() == before


def test_rolling_back_by_name_forgets_what_lies_between(registry: Registry, tmp_path: Path) -> None:
    first, second, third = (publish(registry, tmp_path, seed) for seed in range(3))
    for version in (first, second, third):
        registry.promote(version)
    registry.rollback(first)
    assert registry.lineage() == Lineage(first, (None,))
    registry.rollback(third)  # forward again, by name
    assert registry.lineage() == Lineage(third, (None,))
    assert registry.rollback(BASE) is None
    assert registry.champion() is None


def test_promoting_the_champion_again_changes_nothing(registry: Registry, tmp_path: Path) -> None:
    version = publish(registry, tmp_path, 1)
    registry.promote(version)
    registry.promote(version)
    assert registry.lineage() == Lineage(version, (None,))


@pytest.mark.parametrize(
    "name", ["v9-00000000", "../x", "", "base", "v1-zz", "v0-00000000", ".", "v1-1a2b3c4d.tmp"]
)
def test_an_unknown_version_cannot_be_promoted(registry: Registry, name: str) -> None:
    with pytest.raises(RegistryError, match="There is no version"):
        registry.promote(name)
    assert registry.champion() is None


def test_who_has_lost_the_right_to_promote_does_not(registry: Registry, tmp_path: Path) -> None:
    old, new = (publish(registry, tmp_path, seed) for seed in range(2))
    registry.promote(old)

    def taken_over() -> None:
        raise RegistryError("Another round has taken over.")

    with pytest.raises(RegistryError, match="taken over"):
        registry.promote(new, taken_over)
    assert registry.lineage() == Lineage(old, (None,))


def test_nobody_else_promotes_between_the_check_and_the_change(
    registry: Registry, tmp_path: Path
) -> None:
    first, second = (publish(registry, tmp_path, seed) for seed in range(2))
    others = []

    def look() -> None:
        rival = threading.Thread(target=lambda: registry.promote(second))
        rival.start()
        rival.join(0.3)
        others.append(rival)
        assert rival.is_alive()
        assert registry.champion() is None

    registry.promote(first, look)
    others[0].join(60)
    assert registry.lineage() == Lineage(second, (first, None))


def damage_tensors(folder: Path) -> None:
    data = bytearray((folder / TENSORS_FILE).read_bytes())
    data[-4] ^= 1  # still finite
    (folder / TENSORS_FILE).write_bytes(data)


def swap_config(folder: Path) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps({**config, "lora_alpha": 4000}))


def lose_tensors(folder: Path) -> None:
    (folder / TENSORS_FILE).unlink()


def empty_tensors(folder: Path) -> None:
    (folder / TENSORS_FILE).write_bytes(b"")


def damage_manifest(folder: Path) -> None:
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace("0.75", "0.99"))


def cut_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text((folder / MANIFEST).read_text()[:-30])


@pytest.mark.parametrize(
    "damage",
    [damage_tensors, swap_config, lose_tensors, empty_tensors, damage_manifest, cut_manifest],
)
def test_a_version_damaged_after_publishing_is_refused_and_the_champion_stays(
    registry: Registry, tmp_path: Path, damage: object
) -> None:
    old, new = (publish(registry, tmp_path, seed) for seed in range(2))
    registry.promote(old)
    assert callable(damage)
    damage(registry.folder / "versions" / new)
    with pytest.raises(WeightsError):
        registry.promote(new)
    with pytest.raises(WeightsError):
        registry.rollback(new)
    champion = registry.champion()
    assert champion is not None
    assert champion.id == old


def test_a_damaged_manifest_hides_no_other_version(registry: Registry, tmp_path: Path) -> None:
    first, second = (publish(registry, tmp_path, seed) for seed in range(2))
    cut_manifest(registry.folder / "versions" / first)
    assert [version.id for version in registry.versions()] == [second]
    assert registry.damaged() == (first,)
    assert publish(registry, tmp_path, 5).startswith("v3-")


def test_a_damaged_adapter_is_not_published(registry: Registry, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter")
    edit_tensors(adapter, B=np.full((8, RANK), np.nan, np.float32))
    with pytest.raises(WeightsError, match="not finite"):
        registry.publish(adapter, INFO)
    assert registry.versions() == ()


@pytest.mark.parametrize("content", ["", "[]", '{"champion": "../../etc"}', "\0" * 100_000])
def test_a_damaged_pointer_is_told_and_can_be_set_anew(
    registry: Registry, tmp_path: Path, content: str
) -> None:
    version = publish(registry, tmp_path, 1)
    registry.promote(version)
    (registry.folder / "champion").write_text(content)
    with pytest.raises(WeightsError, match="does not say which version serves"):
        registry.champion()
    registry.rollback(version)
    assert registry.lineage() == Lineage(version, ())


def test_a_folder_that_cannot_be_written_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    with pytest.raises(RegistryError, match="Check the free space"):
        publish(Registry(tmp_path / "models" / "p"), tmp_path, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: VersionInfo("", "a"),
        lambda: VersionInfo("tiny", ""),
        lambda: VersionInfo("tiny", "a", figures={"iou": float("nan")}),
        lambda: VersionInfo("tiny", "a", golden=(Golden("a", b"p", ""),) * 9),
        lambda: Golden("", b"p", ""),
        lambda: Golden("a", b"", ""),
    ],
)
def test_facts_that_cannot_be_are_refused(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(InputError):
        wrong()
