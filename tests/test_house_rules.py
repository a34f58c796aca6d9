"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("segzero_ml", "training_hooks", "backend")
PACKAGE_FILES = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
LONGEST_FILE = 330


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", PACKAGE_FILES, ids=relative)
def test_no_module_is_too_long_to_read_in_one_go(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_FILE, f"{relative(path)} has {lines} lines: split it"


@pytest.mark.parametrize("path", PACKAGE_FILES, ids=relative)
def test_no_package_code_relies_on_assert(path: Path) -> None:
    """`python -O` removes every assert statement, so none may guard anything."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lines = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    assert not lines, f"{relative(path)}, lines {lines}: raise an error of segzero_ml/errors.py"


# Runs in a new interpreter. Third parties are imported first, so that what they do at import
# (some read the environment) is not held against the modules; the audit hook then watches
# only what a module of ours does itself.
WATCH = """
import importlib, os, sys, threading

modules = sys.argv[1:]
ours = ("segzero_ml", "training_hooks", "backend")

def import_all():
    for name in modules:
        importlib.import_module(name)

import_all()
for name in [name for name in sys.modules if name.partition(".")[0] in ours]:
    del sys.modules[name]

offences = []

def caller():
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] in ours:
            return frame.f_globals["__name__"] + ":" + str(frame.f_lineno)
        frame = frame.f_back
    return None

def watch(event, args):
    if event == "open":
        # Python itself reads the source and its compiled form.
        if str(args[0]).endswith((".py", ".pyc")) or ".pyc." in str(args[0]):
            return
    elif not event.startswith(("socket.", "subprocess.", "os.mkdir", "os.putenv", "os.unsetenv",
                               "os.fork", "os.system", "os.remove")):
        return
    place = caller()
    if place is not None:
        offences.append(f"{place} {event} {args!r}")

class Environ(type(os.environ)):
    def __getitem__(self, key):
        frame = sys._getframe(1)
        while frame.f_globals.get("__name__") in ("os", "collections.abc"):
            frame = frame.f_back
        # Only what our own code reads: pydantic, for one, reads a switch of its own whenever
        # a model is defined.
        name = frame.f_globals.get("__name__", "")
        if name.partition(".")[0] in ours:
            offences.append(f"{name}:{frame.f_lineno} reads the environment: {key}")
        return super().__getitem__(key)

os.environ.__class__ = Environ
threads = threading.active_count()
sys.addaudithook(watch)
import_all()
if threading.active_count() != threads:
    offences.append("a thread was started")
print("\\n".join(offences))
"""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@pytest.mark.slow
def test_importing_the_packages_does_nothing() -> None:
    """No environment, file, socket, thread or process is touched by an import."""
    modules = [module_name(path) for path in PACKAGE_FILES if path.name != "__main__.py"]
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WATCH, *modules],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == ""
