"""The same predictions under `label-studio-ml`, for who hosts all models by that.

`SegZero` is a model of both its kinds: 1.0.9 on PyPI, which keeps one object for all projects,
and 2.x on GitHub, which makes one for each call. Either way the models are in memory once, in
`backend.hosted`, and Label Studio's own call is what is answered. Settings are the SEGZERO_*
variables of the server.

To run it: `python -m backend.model --port 9090`, or a WSGI server on `backend.model:create_app()`.
Corrections are not taken from this host's webhooks: `segzero sync` reads them from Label Studio.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from backend.hosted import check_settings, project_of, shared
from backend.labelling import is_unset, parse_config
from segzero_ml.errors import ConfigError

try:
    from label_studio_ml.model import LabelStudioMLBase
except ImportError:  # an extra: nobody else needs it
    LabelStudioMLBase = object
    _is_installed = False
else:
    _is_installed = True

_log = logging.getLogger(__name__)

_INSTALL: Final = (
    "Install label-studio-ml with its pins overridden: they exclude what transformers needs. "
    "The README has the commands."
)


class SegZero(LabelStudioMLBase):  # type: ignore[misc]  # it has no types
    """Answers requests in plain language with masks and notes.

    Args:
        project_id: Where 2.x makes one for each call: `<id>.<created>`.
        label_config: The project's labelling config, if there is one yet.
        more: What 1.0.9 gives besides; the host name and the token in it are not used, as
            anybody could send them.

    Raises:
        ConfigError: `label-studio-ml` is not installed, or a setting is wrong.
        LabellingConfigError: The config cannot be served.
    """

    def __init__(
        self, project_id: str | None = None, label_config: str | None = None, **more: Any
    ) -> None:
        if not _is_installed:
            raise ConfigError("label-studio-ml is not installed.", _INSTALL)
        hosted = shared()  # begins to load
        if label_config and not is_unset(label_config):
            parse_config(label_config)
        if hasattr(LabelStudioMLBase, "set"):
            super().__init__(project_id=project_id, label_config=label_config)
            self.set("model_version", hosted.version(project_of(project_id)))
        else:
            super().__init__(label_config=label_config, train_output=more.get("train_output"))

    def predict(
        self, tasks: Sequence[Mapping[str, Any]], context: Any = None, **more: Any
    ) -> list[Any]:
        """One result for each task; `[]` for a task without an answer, which Label Studio skips.

        Args:
            tasks: As Label Studio sends them.
            context: What the annotator just did, in an interactive call.
            more: Not used: logins.

        Raises:
            LabellingConfigError: There is no config to answer for.
            UnavailableError: The model is still loading, failed to load, or has too much to do.
        """
        body = _call() or {}
        asked = {
            "tasks": list(tasks),
            # 1.0.9 knows the config of the project that was set up last: not always this one's.
            "project": body.get("project") or _project(self, tasks),
            "label_config": body.get("label_config") or self.label_config or "",
            "params": {"context": context},
        }
        return list(shared().predict(asked).results)

    def fit(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Learns nothing here: `segzero sync` and `segzero train` do, from Label Studio itself."""
        return {}


def _call() -> Mapping[str, Any] | None:
    """The body of the call that this thread answers, if it answers one."""
    # Comes with label-studio-ml.
    from flask import has_request_context, request

    body = request.get_json(silent=True) if has_request_context() else None
    return body if isinstance(body, Mapping) else None


def _project(model: object, tasks: Sequence[Mapping[str, Any]]) -> object:
    given = getattr(model, "project_id", None)
    return given or (tasks[0].get("project") if tasks else None)


def create_app() -> Any:
    """The WSGI application of `label-studio-ml` with this model.

    The model begins to load with the first request of any kind, in the process that answers it:
    a server may load the application and fork its workers afterwards, and neither threads nor
    GPUs would come along.

    Raises:
        ConfigError: `label-studio-ml` is not installed, or a setting is wrong.
    """
    if not _is_installed:
        raise ConfigError("label-studio-ml is not installed.", _INSTALL)
    from label_studio_ml import api, model

    check_settings()
    if hasattr(model, "LabelStudioMLManager"):
        api._manager = _telling_versions(model)
    application = api.init_app(model_class=SegZero)
    application.before_request(_begin_to_load)
    return application


def _begin_to_load() -> None:
    shared()


def _telling_versions(model: Any) -> Any:
    """The manager of 1.0.9, with versions of ours.

    It takes the version from the jobs that trained a model, and calls everything else `INITIAL`;
    Label Studio would then ask for the same predictions over and over.
    """

    class Jobs(model.JobManager):  # type: ignore[misc]
        def get_result(self, model_version: str | None = None) -> dict[str, Any]:
            body = _call() or {}
            return {"job_id": shared().version(project_of(body.get("project")))}

        def run_job(self, model_class: type, args: tuple[Any, ...]) -> None:
            _log.info("Event %s is left to segzero sync.", args[0])

    class Manager(model.LabelStudioMLManager):  # type: ignore[misc]
        @classmethod
        def get_job_manager(cls) -> Jobs:
            return Jobs()

        @classmethod
        def predict(cls, *given: Any, **more: Any) -> Any:
            # The version as of now, and a model also where nobody called /setup before.
            body = _call() or {}
            wrapper = cls.fetch(body.get("project"), body.get("label_config"))
            return wrapper.model.predict(given[0], **more), wrapper

    return Manager()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it on Flask's own server, several calls at a time."""
    parser = argparse.ArgumentParser(prog="python -m backend.model", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=9090, help="port to listen on")
    given = parser.parse_args(arguments)
    application = create_app()
    shared()
    application.run(host=given.host, port=given.port, threaded=True)


if __name__ == "__main__":
    main()
