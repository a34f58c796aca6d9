"""New predictions for tasks whose own are of an older model version, in the background."""

from __future__ import annotations

from redis import Redis

from backend.preannotate.asking import Backend
from backend.preannotate.plan import Selection, enqueue, make_plan
from backend.reconcile.projects import open_label_studio
from backend.redis_access import open_redis
from backend.settings import Settings


def enqueue_refresh(
    settings: Settings, project: int, version: str | None = None, redis: Redis | None = None
) -> int:
    """Put jobs into the queue for a project's stale tasks, and do not wait for them.

    Annotations and older predictions stay as they are.

    Args:
        settings: Where Label Studio, Redis and the backend are.
        project: Id of the project.
        version: Model version that the predictions are to have, as `/versions` names it; the
            one that answers now if None. The jobs wait a minute for it to answer.
        redis: A connection to use.

    Returns:
        How many jobs are new.

    Raises:
        ConfigError: A setting is missing.
        LabelStudioError: Label Studio does not answer, or refuses.
        ModelError: The backend does not answer, and `version` is None.
        StoreError: Redis does not answer.
    """
    if version is None:
        with Backend(settings) as backend:
            version = backend.version(project)
    with open_label_studio(settings) as client:
        plan = make_plan(client, project, version, Selection(stale=True))
    name = settings.label_studio_name
    if redis is not None:
        return enqueue(plan, redis, name)
    with open_redis(settings, "segzero-refresh") as opened:
        return enqueue(plan, opened, name)
