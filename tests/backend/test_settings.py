"""Settings: read from the environment, checked with the name of the variable."""

from __future__ import annotations

import pytest

from backend.settings import Settings, check_exposure, check_guards, is_loopback, load_settings
from segzero_ml.errors import ConfigError

ANYWHERE = "0.0.0.0"  # noqa: S104 - never listened on


def test_defaults_listen_on_this_machine_with_the_bundled_preset() -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.preset) == ("127.0.0.1", 9090, "tiny")
    check_exposure(settings)


def test_environment_is_read_and_an_option_goes_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGZERO_PORT", "1234")
    monkeypatch.setenv("SEGZERO_PRESET", "seg-zero-7b")
    settings = load_settings(port=4321, preset=None)
    assert (settings.port, settings.preset) == (4321, "seg-zero-7b")


def test_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGZERO_USER", "")
    monkeypatch.setenv("SEGZERO_PORT", "")
    assert load_settings().user is None
    assert load_settings().port == 9090


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGZERO_ALLOWED_HOSTS", "Minio.local, files:9000 ,")
    monkeypatch.setenv("SEGZERO_REQUEST_FIELDS", "question")
    settings = load_settings()
    assert settings.allowed_hosts == ("minio.local", "files:9000")
    assert settings.request_fields == ("question",)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SEGZERO_PORT", "99999"),
        ("SEGZERO_PORT", "http"),
        ("SEGZERO_MAX_IMAGE_PIXELS", "0"),
        ("SEGZERO_FETCH_TIMEOUT_S", "-1"),
        ("SEGZERO_WEBHOOK_SECRET", "two secret words"),
        ("SEGZERO_WEBHOOK_SECRET", "secr\u00e9t"),
        ("SEGZERO_LABEL_STUDIO_URL", "label-studio:8080"),
        ("SEGZERO_LABEL_STUDIO_URL", "ftp://label-studio"),
        ("SEGZERO_LABEL_STUDIO_URL", "http://user:secret@label-studio"),
        ("SEGZERO_LABEL_STUDIO_URL", "http://label-studio/?a=b"),
        ("SEGZERO_LABEL_STUDIO_URL", "http://[::1"),
    ],
)
def test_wrong_value_is_refused_by_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=variable) as caught:
        load_settings()
    assert "secret" not in str(caught.value)


def test_user_without_password_is_refused() -> None:
    with pytest.raises(ConfigError, match="SEGZERO_USER and SEGZERO_PASSWORD belong together"):
        load_settings(user="ada")


def test_token_without_an_address_to_send_it_to_is_refused() -> None:
    with pytest.raises(ConfigError, match="SEGZERO_LABEL_STUDIO_URL is not"):
        load_settings(label_studio_token="abc")


def test_secrets_do_not_show_in_the_settings_text() -> None:
    settings = load_settings(
        user="ada",
        password="pass-word-1",
        webhook_secret="hook-secret-1",
        label_studio_url="http://ls",
        label_studio_token="token-1",
    )
    for secret in ("pass-word-1", "hook-secret-1", "token-1"):
        assert secret not in repr(settings)


def test_every_setting_says_what_it_is_for() -> None:
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_loopback_addresses_are_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", [ANYWHERE, "::", "", "192.168.1.5", "example.org", "127.1"])
def test_anything_else_counts_as_reachable_by_others(host: str) -> None:
    assert not is_loopback(host)


def test_listening_beyond_loopback_needs_login_and_webhook_secret() -> None:
    with pytest.raises(ConfigError) as caught:
        check_exposure(load_settings(host=ANYWHERE))
    for name in ("SEGZERO_USER", "SEGZERO_PASSWORD", "SEGZERO_WEBHOOK_SECRET"):
        assert name in str(caught.value)
    with pytest.raises(ConfigError, match="SEGZERO_WEBHOOK_SECRET not set"):
        check_exposure(load_settings(host=ANYWHERE, user="ada", password="x"))
    check_exposure(load_settings(host=ANYWHERE, user="ada", password="x", webhook_secret="y"))


LOGIN = {"user": "ada", "password": "x"}


@pytest.mark.parametrize(
    ("given", "missing", "lost"),
    [
        ({"webhook_secret": "y"}, "SEGZERO_USER, SEGZERO_PASSWORD not set", "Start training"),
        (LOGIN, "SEGZERO_WEBHOOK_SECRET not set", "every correction"),
    ],
)
def test_a_login_and_a_webhook_secret_are_set_together_or_not_at_all(
    given: dict[str, str], missing: str, lost: str
) -> None:
    for check in (check_guards, check_exposure):
        with pytest.raises(ConfigError, match=missing) as caught:
            check(load_settings(**given))
        assert lost in caught.value.message
        assert "Set all three" in caught.value.remedy
        check(load_settings())
        check(load_settings(**LOGIN, webhook_secret="y"))
