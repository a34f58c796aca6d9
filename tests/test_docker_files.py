"""The files in `docker/` agree with the code; nothing here runs a container."""

from __future__ import annotations

import ipaddress
import re
import shlex
from configparser import ConfigParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from backend.cli import app as cli
from backend.connect import check_backend_url
from backend.settings import ENV_PREFIX, Settings, is_loopback

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / "docker"
COMPOSE_FILES = sorted(DOCKER.glob("compose*.yaml"))
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
# A line that ends in a backslash goes on in the next one.
INSTRUCTIONS = re.sub(r"\\\n", " ", DOCKERFILE).splitlines()


def load(path: Path) -> dict[str, Any]:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = load(DOCKER / "compose.yaml")["services"]
    return found


def example_variables() -> dict[str, str]:
    lines = (DOCKER / "env.example").read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def stage_of(target: str) -> list[str]:
    """The instructions of one stage of the Dockerfile, with those of the stages it builds on."""
    stages: dict[str, list[str]] = {}
    name = ""
    for line in INSTRUCTIONS:
        if match := re.match(r"FROM (\S+) AS (\S+)", line):
            name = match[2]
            stages[name] = list(stages.get(match[1], []))
        elif name:
            stages[name].append(line)
    return stages[target]


def exec_form(instructions: list[str], keyword: str) -> list[str]:
    text = next(line for line in reversed(instructions) if keyword in line)
    command = yaml.safe_load(text[text.index("[") :])
    assert isinstance(command, list)
    return command


def test_every_variable_of_the_compose_files_is_in_the_example_and_the_other_way_round() -> None:
    used: set[str] = set()
    for path in COMPOSE_FILES:
        used.update(re.findall(r"(?<!\$)\$\{(\w+)", path.read_text(encoding="utf-8")))
    assert used == set(example_variables())


def test_no_secret_has_a_value_in_the_files() -> None:
    for name, value in example_variables().items():
        if re.search("PASSWORD|TOKEN|SECRET|USER", name):
            assert value == "", name
    for path in COMPOSE_FILES:
        for service in load(path)["services"].values():
            for name, value in service.get("environment", {}).items():
                if re.search("PASSWORD|_TOKEN$|SECRET|AUTH$", name):
                    assert re.fullmatch(r"\$\{\w+:\?.+\}|true", value), name


def test_the_filled_in_example_is_ignored_by_git() -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert "docker/.env" in ignored


def test_every_segzero_variable_is_a_setting_of_the_backend(services: dict[str, Any]) -> None:
    settings = {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    assert set(services["backend"]["environment"]) <= settings


def test_the_backend_starts_with_these_settings(services: dict[str, Any]) -> None:
    """The login that listening on every address needs is among the variables."""
    environment = services["backend"]["environment"]
    assert not is_loopback("0.0.0.0")  # noqa: S104
    for name in ("USER", "PASSWORD", "WEBHOOK_SECRET"):
        assert environment[ENV_PREFIX + name].endswith("set it in docker/.env}")


def test_the_backend_uses_the_redis_beside_it_and_keeps_its_data_on_a_volume(
    services: dict[str, Any],
) -> None:
    address = services["backend"]["environment"][ENV_PREFIX + "REDIS_URL"]
    password, host = re.fullmatch(r"redis://:(\$\{\w+:\?.+\})@(\w+):6379/0", address).groups()  # type: ignore[union-attr]
    assert host in services
    assert password == services["redis"]["environment"]["REDISCLI_AUTH"]
    (data,) = re.findall(r"SEGZERO_DATA_DIR=(\S+)", "\n".join(stage_of("backend")))
    mounted = {volume.partition(":")[2] for volume in services["backend"]["volumes"]}
    assert Path(data).parent.as_posix() in mounted


def test_the_backend_has_a_name_with_a_dot_for_webhooks(services: dict[str, Any]) -> None:
    aliases = services["backend"]["networks"]["default"]["aliases"]
    assert any("." in alias for alias in aliases)


def test_label_studio_may_call_a_backend_on_a_private_network(services: dict[str, Any]) -> None:
    environment = services["label-studio"]["environment"]
    assert environment["ML_BLOCK_LOCAL_IP"] == "false"
    assert environment["SSRF_PROTECTION_ENABLED"] == "false"


def test_redis_writes_every_change_to_disk_and_asks_for_a_password(
    services: dict[str, Any],
) -> None:
    arguments = shlex.split(services["redis"]["command"][-1])
    options = dict(pairwise(arguments))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--requirepass"] == "$$REDISCLI_AUTH"
    assert "redis:/data" in services["redis"]["volumes"]


def test_published_ports_are_reachable_from_this_machine_only(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for port in service.get("ports", []):
            address = port.rpartition(":")[0].rpartition(":")[0]
            assert ipaddress.ip_address(address).is_loopback, name


def test_every_named_volume_is_declared() -> None:
    document = load(DOCKER / "compose.yaml")
    used = {
        volume.partition(":")[0]
        for service in document["services"].values()
        for volume in service.get("volumes", [])
    }
    assert used == set(document["volumes"])


def test_every_service_says_when_it_is_healthy(services: dict[str, Any]) -> None:
    for name, service in services.items():
        image = "\n".join(stage_of(name)) if "build" in service else ""
        assert "healthcheck" in service or "HEALTHCHECK" in image, name


def test_what_the_compose_file_builds_exists(services: dict[str, Any]) -> None:
    build = services["backend"]["build"]
    context = (DOCKER / build["context"]).resolve()
    assert context == ROOT
    assert (context / build["dockerfile"]).is_file()
    assert stage_of(build["target"])


def test_the_overlay_for_gpus_changes_services_that_exist(services: dict[str, Any]) -> None:
    assert set(load(DOCKER / "compose.gpu.yaml")["services"]) <= set(services)


def test_everything_the_image_copies_exists_and_reaches_the_build() -> None:
    ignore = (DOCKER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    copied = {
        source
        for line in INSTRUCTIONS
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    }
    assert {source for source in copied if not (ROOT / source).exists()} == set()
    assert "*" in ignore
    assert {entry[1:] for entry in ignore if entry.startswith("!")} == copied


def test_the_image_does_not_run_as_root() -> None:
    users = [line.split()[1] for line in stage_of("backend") if line.startswith("USER ")]
    assert users
    assert users[-1] not in {"root", "0"}


def test_the_image_that_compose_builds_can_train(services: dict[str, Any]) -> None:
    """`segzero up` has a worker for rounds only where the extra is installed."""
    image = stage_of(services["backend"]["build"]["target"])
    (source,) = re.findall(r"COPY --from=(\S+) ", "\n".join(image))
    (installed,) = re.findall(r'pip install "?\.(\S*?)"?$', "\n".join(stage_of(source)), re.M)
    extra = installed.strip("[]")
    configuration = ConfigParser()
    configuration.read(ROOT / "setup.cfg")
    extras = configuration["options.extras_require"]
    names = re.findall(r"^([\w-]+)>=", extras[extra], re.M)
    assert {"trl", "datasets", "accelerate"} <= set(names)


def test_the_command_that_joins_a_project_names_the_backend_as_label_studio_may_call_it(
    services: dict[str, Any],
) -> None:
    comment = " ".join(
        line.strip("# \\")
        for line in (DOCKER / "compose.yaml").read_text(encoding="utf-8").splitlines()
        if line.startswith("#")
    )
    command = r"exec backend segzero connect --project 1 --backend-url (\S+)"
    (address,) = re.findall(command, comment)
    port = next(line.split()[1] for line in stage_of("backend") if line.startswith("EXPOSE "))
    aliases = services["backend"]["networks"]["default"]["aliases"]
    assert address in {f"http://{alias}:{port}" for alias in aliases}
    assert check_backend_url(address) == address


def test_the_backend_image_runs_a_command_that_exists() -> None:
    program, command, *options = exec_form(stage_of("backend"), "CMD ")
    assert program == "segzero"
    commands = typer.main.get_command(cli)
    assert command in commands.commands  # type: ignore[attr-defined]
    known = {
        name
        for parameter in commands.commands[command].params  # type: ignore[attr-defined]
        for name in parameter.opts
    }
    assert set(options[::2]) <= known


def test_the_health_check_asks_the_port_that_is_exposed() -> None:
    backend = stage_of("backend")
    port = next(line.split()[1] for line in backend if line.startswith("EXPOSE "))
    command = exec_form(backend, "CMD ")
    assert command[command.index("--port") + 1] == port
    check = next(line for line in backend if line.startswith("HEALTHCHECK"))
    assert f"127.0.0.1:{port}/health" in check


def test_the_build_finds_the_bounds_of_what_it_installs_first() -> None:
    """The Dockerfile reads them out of setup.cfg with sed."""
    lines = (ROOT / "setup.cfg").read_text(encoding="utf-8").splitlines()
    for name in ("torch", "torchvision", "sam2"):
        assert sum(bool(re.fullmatch(rf" +{name}>=[0-9.]+", line)) for line in lines) == 1
