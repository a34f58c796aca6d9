"""The demo, step by step."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from types import FrameType
from typing import Final

from pydantic import SecretStr
from rich.console import Console

from backend.connect import BackendAccess, connect
from backend.demo import evening
from backend.demo.install import VERSION, install
from backend.demo.processes import Child, ProcessError, local_env
from backend.demo.servers import (
    LABEL_STUDIO_START_S,
    start_backend,
    start_label_studio,
    wait_for_model,
)
from backend.demo.show import (
    Say,
    Steps,
    how_to_look,
    how_to_teach,
    summary_of,
    table_of,
    teaching_commands,
    what_next,
)
from backend.demo.state import (
    Folder,
    State,
    evening_project,
    fresh_state,
    has_data,
    kept_state,
)
from backend.demo.tasks import (
    Outcome,
    import_samples,
    newest_prediction,
    outcome,
    retrieve_all,
    scene_of,
)
from backend.label_studio import LabelStudio
from backend.label_studio_http import LabelStudioApiError
from backend.templates import labelling_config
from segzero_ml.datasets import Sample

TASKS: Final = 14
"""Two of each kind of request."""

_SEED: Final = 2026
"""Held-out scenes; other than those that segzero eval draws by default."""
_STEPS: Final = 7
_MORE_STEPS: Final = 2
_TITLE: Final = "Tabletop scenes (SegZero demo)"
_DESCRIPTION: Final = "Ask for things in plain words; the masks and the reasons are made for you."


@dataclass(frozen=True, slots=True)
class Options:
    """How to run the demo.

    Args:
        folder: Everything lies under it.
        once: Stop after the table.
        fresh: Drop the last run's data instead of going on with its project.
        port: Port for Label Studio; None for any.
    """

    folder: Path = Path(".demo")
    once: bool = False
    fresh: bool = False
    port: int | None = None


def run(options: Options, console: Console) -> bool:
    """Run the demo until Ctrl-C, or with `once` until the table is there.

    Returns:
        Whether every task got its prediction.

    Raises:
        SegZeroError: A step failed; whatever was started has been stopped.
        KeyboardInterrupt: Ctrl-C or SIGTERM came before the table was there.
    """
    folder = Folder(options.folder.resolve())
    os.environ.update(local_env(os.environ))
    with folder.locked(), terminated_as_interrupt(), ExitStack() as children:
        state = _state(options, folder, console)
        steps = Steps(console, _STEPS)
        servers = _start(state, folder, steps, children)
        with LabelStudio(state.label_studio_url, state.user.token) as client:
            state, samples = _fill(client, state, folder, steps)
            version = _connect(client, state, steps)
            found = _predict(client, state, samples, version, steps)
        console.print(table_of(found))
        console.print(summary_of(found))
        if not options.once:
            console.print(what_next(state))
            console.print(how_to_look(state, folder), soft_wrap=True)
            try:
                _teach(state, folder, console)
                _stay(servers)
            except KeyboardInterrupt:
                console.print("Stopping SegZero and Label Studio.")
        return all(row.iou is not None for row in found)


def _state(options: Options, folder: Folder, console: Console) -> State:
    """The last run's state if there is one to go on with, else a new one; says which."""
    kept = None if options.fresh else kept_state(folder, options.port)
    if kept is not None:
        console.print(
            f"Going on with the last run's project and corrections in {folder.root}; "
            "make demo FRESH=1 drops them and starts anew.",
            markup=False,
        )
        return kept
    if has_data(folder):
        why = "As asked" if options.fresh else "The last run got no project"
        console.print(f"{why}: dropping the last run's data in {folder.root}.", markup=False)
    return fresh_state(folder, options.port)


@contextmanager
def terminated_as_interrupt() -> Iterator[None]:
    """Make SIGTERM and a closed terminal end us as Ctrl-C does: with everything stopped."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signals = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, interrupt) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _start(state: State, folder: Folder, steps: Steps, children: ExitStack) -> Sequence[Child]:
    """Install Label Studio, start both servers and wait until they answer."""
    with steps.step(f"Label Studio {VERSION} in an environment of its own") as say:
        program = install(
            folder.label_studio,
            folder.log("install"),
            lambda seconds, line: say(f"{seconds:.0f} s  {line}"),
        )
    with steps.step("Starting Label Studio (the first start makes its database)") as say:
        label_studio = children.enter_context(
            start_label_studio(
                program,
                folder.data,
                state.label_studio_port,
                state.user,
                folder.log("label-studio"),
            )
        )
        # At the same time, as both take a while.
        backend = children.enter_context(
            start_backend(
                state.backend_port,
                state.label_studio_url,
                state.user.token,
                state.backend,
                folder.log("segzero"),
                data=folder.segzero,
                more=evening.SETTINGS,
            )
        )
        label_studio.wait_until(
            f"{state.label_studio_url}/health", LABEL_STUDIO_START_S, _seconds(say)
        )
    with steps.step("Starting SegZero (Redis, worker, backend) and loading its models") as say:
        wait_for_model(backend, state.backend_url, _seconds(say))
    return label_studio, backend


def _fill(
    client: LabelStudio, state: State, folder: Folder, steps: Steps
) -> tuple[State, dict[int, Sample]]:
    """Have the project with its tasks; the sample that each was made of."""
    from segzero_ml.datasets.scenes import scene_samples

    with steps.step(f"A project with {TASKS} pictures and requests") as say:
        say("drawing")
        samples = list(scene_samples(TASKS, _SEED))
        if state.project_id is None or not _exists(client, state.project_id):
            say("uploading")
            project = client.create_project(_TITLE, labelling_config(), description=_DESCRIPTION)
            import_samples(client, project.id, samples)
            state = replace(state, project_id=project.id)
            state.save(folder)
        by_scene = {sample.sample_id: sample for sample in samples}
        tasks = client.tasks(_project(state))
        of_task = {
            task.id: by_scene[scene] for task in tasks if (scene := scene_of(task)) in by_scene
        }
    return state, of_task


def _connect(client: LabelStudio, state: State, steps: Steps) -> str | None:
    """Join the backend to the project; the version that it reports."""
    with steps.step("Connecting the backend to the project (as segzero connect does)"):
        return connect(client, _project(state), _access(state)).model_version


def _access(state: State) -> BackendAccess:
    """How Label Studio reaches the backend."""
    return BackendAccess(
        state.backend_url,
        state.backend.user,
        SecretStr(state.backend.password),
        SecretStr(state.backend.webhook_secret),
    )


def _predict(
    client: LabelStudio,
    state: State,
    samples: dict[int, Sample],
    version: str | None,
    steps: Steps,
) -> list[Outcome]:
    """Have Label Studio retrieve the predictions, and read them back."""
    project_id = _project(state)
    with steps.step('Label Studio retrieves predictions ("Retrieve predictions")') as say:
        missing = [
            task.id
            for task in client.tasks(project_id)
            if task.id in samples and newest_prediction(task, version) is None
        ]
        if missing:
            retrieve_all(
                client,
                project_id,
                missing,
                version,
                lambda done: say(f"{done} of {len(missing)} tasks"),
            )
    with steps.step("Reading the predictions back"):
        tasks = [task for task in client.tasks(project_id) if task.id in samples]
        return [outcome(task, samples[task.id], version) for task in tasks]


def _exists(client: LabelStudio, project_id: int) -> bool:
    """Whether the last run's project is still there; its user may have deleted it."""
    try:
        client.project(project_id)
    except LabelStudioApiError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return False
        raise
    return True


def _teach(state: State, folder: Folder, console: Console) -> None:
    """Have the second project, whose predictions are to be corrected; say what to do there."""
    steps = Steps(console, _MORE_STEPS)
    with LabelStudio(state.label_studio_url, state.user.token) as client:
        with steps.step(f"A second project, with {evening.TASKS} evening scenes to correct") as say:
            if state.evening_id is None or not _exists(client, state.evening_id):
                state = replace(state, evening_id=evening.make_project(client))
                state.save(folder)
            project = evening_project(state)
            evening.fill(client, project, say)
            version = connect(client, project, _access(state)).model_version
        with steps.step("Label Studio retrieves predictions of the first ones") as say:
            tasks = client.tasks(project)[: evening.SHOWN]
            evening.predict_some(client, project, tasks, version, say)
    console.print(how_to_teach(state))
    console.print(teaching_commands(state, folder), soft_wrap=True)


def _stay(servers: Sequence[Child]) -> None:
    """Until Ctrl-C.

    Raises:
        KeyboardInterrupt: That is it.
        ProcessError: A server stopped by itself.
    """
    while True:
        for server in servers:
            if server.exit_code is not None:
                raise server.failed(f"{server.name} stopped by itself.")
        time.sleep(1)


def _project(state: State) -> int:
    if state.project_id is None:
        raise ProcessError("The demo has no project.", "Start anew: make demo FRESH=1.")
    return state.project_id


def _seconds(say: Say) -> Callable[[float], None]:
    return lambda seconds: say(f"{seconds:.0f} s")
