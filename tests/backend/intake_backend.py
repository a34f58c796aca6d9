"""A backend process that takes webhooks and has no model: `python -m tests.backend.intake_backend`.

Settings come from the environment, as ever.
"""

from __future__ import annotations

from typing import NoReturn

from backend.app import create_app
from backend.logs import configure_logging
from backend.serve import Server
from backend.settings import load_settings
from segzero_ml.errors import ModelError


def no_model() -> NoReturn:
    raise ModelError("This backend takes webhooks only.")


def main() -> None:
    settings = load_settings()
    configure_logging()
    Server(create_app(settings, load_pipeline=no_model), settings).run()


if __name__ == "__main__":
    main()
