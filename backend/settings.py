"""Settings of the backend: `SEGZERO_*` environment variables, read once, checked at start."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Final, Self

import httpx
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from backend.training_settings import TrainingSettings
from segzero_ml.errors import ConfigError

ENV_PREFIX: Final = "SEGZERO_"
_MIB: Final = 1024 * 1024

HostList = Annotated[tuple[str, ...], NoDecode]
"""Names separated by commas in the environment."""


class ServingSettings(BaseSettings):
    """What an operator can set, except for training."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
    )

    preset: str = Field(
        default="tiny", description="Name of the preset: which reasoner and segmenter."
    )
    host: str = Field(default="127.0.0.1", description="Address the backend listens on.")
    port: int = Field(default=9090, ge=0, le=65535, description="Port the backend listens on.")

    label_studio_url: str | None = Field(
        default=None, description="Address of Label Studio, such as http://label-studio:8080."
    )
    label_studio_token: SecretStr | None = Field(
        default=None, description="Personal access token (or legacy token) for Label Studio."
    )

    user: str | None = Field(
        default=None, description="User name that callers must give (HTTP Basic)."
    )
    password: SecretStr | None = Field(
        default=None, description="Password that callers must give (HTTP Basic)."
    )
    webhook_secret: SecretStr | None = Field(
        default=None,
        description="Secret that webhooks must carry in the X-SegZero-Secret header. Set user, "
        "password and secret, or none of the three.",
    )

    allowed_hosts: HostList = Field(
        default=(),
        description="Hosts on a private network that images may be fetched from, as host or "
        "host:port, separated by commas. The address of Label Studio is always allowed. Without "
        "a login they are also names under which this backend may be called.",
    )
    max_image_bytes: int = Field(
        default=50 * _MIB, ge=1, description="Largest image file that is fetched, in bytes."
    )
    max_image_pixels: int = Field(
        default=50_000_000, ge=1, description="Largest image that is decoded, in pixels."
    )
    image_cache_bytes: int = Field(
        default=1024 * _MIB,
        ge=0,
        description="Most bytes of fetched images that are kept in the data folder; 0 for none.",
    )
    fetch_timeout_s: float = Field(
        default=20.0, gt=0, le=600, description="Longest time to fetch one image, in seconds."
    )

    request_fields: HostList = Field(
        default=("request", "prompt"),
        description="Fields of a task's data that may hold the request, first match wins, "
        "separated by commas. A field that the labelling config shows goes before them.",
    )
    keep_request: bool = Field(
        default=False,
        description="Whether the request that was typed last in a project is asked of the next "
        "task that is opened there and has none of its own, for half an hour.",
    )
    batch_size: int = Field(
        default=4, ge=1, le=256, description="Requests that the model answers at once."
    )
    predict_deadline_s: float = Field(
        default=85.0,
        gt=0,
        description="Seconds after which /predict returns what is finished; Label Studio "
        "waits 100 s, many proxies 90 s.",
    )
    late_work_s: float = Field(
        default=3600.0,
        ge=0,
        description="Seconds of work, as estimated, that may go on behind calls that were "
        "answered at the deadline; its predictions are written through Label Studio's API. 0: "
        "what is late waits for the next Retrieve predictions.",
    )
    load_wait_s: float = Field(
        default=60.0,
        ge=0,
        description="Seconds that /predict waits for a model that is still loading.",
    )
    max_calls: int = Field(
        default=32, ge=1, description="Calls to /predict at the same time; more are answered 503."
    )
    max_body_bytes: int = Field(
        default=64 * _MIB, ge=1024, description="Largest body of a call to the backend, in bytes."
    )
    data_dir: Path = Field(
        default=Path("segzero-data"),
        description="Folder of everything that must not be lost: webhooks not handled yet, the "
        "embedded Redis, model versions. Local disk, not a network share.",
    )
    redis_url: SecretStr | None = Field(
        default=None,
        description="Address of your own Redis (6.2 or newer) or Valkey; without one, the "
        "embedded server that segzero up starts in the data folder.",
    )
    label_studio_name: str = Field(
        default="label-studio",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="Name of this Label Studio in the store of corrections. Never change it; "
        "give each its own where several share one Redis.",
    )
    spool_bytes: int = Field(
        default=1024 * _MIB,
        ge=32 * _MIB,
        description="Most bytes on disk for webhooks that are not handled yet; then 507.",
    )
    reconcile_every_s: float = Field(
        default=900.0,
        ge=0,
        description="Seconds between two comparisons of the store with Label Studio, which "
        "bring back what webhooks missed; 0 for none but segzero sync.",
    )
    backend_url: str | None = Field(
        default=None,
        description="Address of the backend whose model answers segzero preannotate; "
        "http://HOST:PORT of this machine by default.",
    )
    refresh_after_promotion: bool = Field(
        default=False,
        description="Whether tasks whose predictions a new model version has made stale get new "
        "ones by themselves.",
    )
    drain_s: float = Field(
        default=8.0,
        ge=0,
        description="Seconds that running predictions get to finish at shutdown, which takes "
        "about one second more. Docker kills after 10 s unless it is given a longer grace period.",
    )

    @field_validator("allowed_hosts", "request_fields", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _lower_case_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(host.lower().rstrip(".") for host in value)

    @field_validator("label_studio_url", "backend_url")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            url = httpx.URL(value.strip())
        except httpx.InvalidURL as error:
            raise ValueError(f"is not an address: {error}") from error
        if url.scheme not in {"http", "https"} or not url.host:
            raise ValueError("must start with http:// or https:// and name a host")
        if url.userinfo or url.query or url.fragment:
            raise ValueError("must not hold a user name, a query or a fragment")
        return str(url).rstrip("/")

    @field_validator("webhook_secret")
    @classmethod
    def _check_webhook_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[\x21-\x7e]+", value.get_secret_value()):
            raise ValueError("must be ASCII without spaces, as it travels in a header")
        return value

    @model_validator(mode="after")
    def _check_pairs(self) -> Self:
        if (self.user is None) != (self.password is None):
            raise ValueError(
                f"{ENV_PREFIX}USER and {ENV_PREFIX}PASSWORD belong together: set both or neither"
            )
        if self.label_studio_token is not None and self.label_studio_url is None:
            raise ValueError(
                f"{ENV_PREFIX}LABEL_STUDIO_TOKEN is set but {ENV_PREFIX}LABEL_STUDIO_URL is not: "
                "the token is sent to that address only"
            )
        return self

    @property
    def needs_login(self) -> bool:
        """Whether callers must give a user name and a password."""
        return self.password is not None


class Settings(TrainingSettings, ServingSettings):
    """What an operator can set. Every field is the environment variable `SEGZERO_<NAME>`."""


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment; a given override that is not None goes first.

    Raises:
        ConfigError: A setting is wrong; the message names its environment variable and
            never its value.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        problems = "; ".join(_describe(item) for item in error.errors(include_input=False))
        raise ConfigError(
            f"The settings are wrong: {problems}.",
            f"Correct the {ENV_PREFIX}* environment variables or the options.",
        ) from None


def check_exposure(settings: Settings) -> None:
    """Refuse to listen beyond this machine without a login and a webhook secret.

    Raises:
        ConfigError: `host` is not a loopback address and something that guards it is unset; or
            as `check_guards`.
    """
    missing = _missing_guards(settings)
    if missing and not is_loopback(settings.host):
        raise ConfigError(
            f"Listening on {settings.host} would let others on the network use this backend "
            f"without a password: {', '.join(missing)} not set.",
            "Set them, or listen on 127.0.0.1 only.",
        )
    check_guards(settings)


def check_guards(settings: Settings) -> None:
    """Refuse a webhook secret without a login, and a login without a webhook secret.

    Label Studio sends corrections with the secret alone, all else with the login alone.

    Raises:
        ConfigError: Only one of them is set.
    """
    login, secret = settings.needs_login, settings.webhook_secret is not None
    if login == secret:
        return
    lost = "Start training" if secret else "every correction"
    raise ConfigError(
        f"{', '.join(_missing_guards(settings))} not set: the backend would refuse {lost}, which "
        f"Label Studio sends without the {'secret' if secret else 'login'}.",
        f"Set all three of {ENV_PREFIX}USER, {ENV_PREFIX}PASSWORD and {ENV_PREFIX}WEBHOOK_SECRET, "
        "or none.",
    )


def _missing_guards(settings: Settings) -> list[str]:
    needed = {
        "USER": settings.user,
        "PASSWORD": settings.password,
        "WEBHOOK_SECRET": settings.webhook_secret,
    }
    return [ENV_PREFIX + name for name, value in needed.items() if value is None]


def is_loopback(host: str) -> bool:
    """Whether a listening address is reachable from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _describe(item: Any) -> str:
    message = str(item["msg"]).removeprefix("Value error, ")
    if not item["loc"]:
        return message
    return f"{ENV_PREFIX}{str(item['loc'][0]).upper()}: {message}"
