"""The hub token leaves the environment only after JupyterHub's parts have read it."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from dcde_lab.hub_token import take_token
from jupyterhub.services.auth import HubOAuth


@pytest.fixture
def hub_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "JUPYTERHUB_API_TOKEN": "sample-token-of-a-test",
        "JPY_API_TOKEN": "sample-token-of-a-test",
        "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-ada",
        "JUPYTERHUB_SERVICE_PREFIX": "/user/ada/",
        "JUPYTERHUB_API_URL": "http://127.0.0.1:1/hub/api",
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_OAUTH_CALLBACK_URL": "/user/ada/oauth_callback",
        "JUPYTERHUB_HOST": "",
    }.items():
        monkeypatch.setenv(name, value)


def app_with(identity: object, *extensions: object) -> SimpleNamespace:
    manager = SimpleNamespace(extension_apps={"others": set(extensions)} if extensions else {})
    return SimpleNamespace(identity_provider=identity, extension_manager=manager)


def test_hub_oauth_keeps_its_token_and_the_environment_loses_it(hub_environment: None):
    identity, extension = (SimpleNamespace(hub_auth=HubOAuth()) for _ in range(2))
    manager = SimpleNamespace(extension_apps={"others": [extension]})
    app = SimpleNamespace(identity_provider=identity, extension_manager=manager)

    assert take_token(app) == "sample-token-of-a-test"

    assert not {"JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN"} & set(os.environ)
    assert identity.hub_auth.api_token == extension.hub_auth.api_token == "sample-token-of-a-test"
    seen = subprocess.run([sys.executable, "-c", "import os; print(dict(os.environ))"], capture_output=True, text=True)
    assert "sample-token" not in seen.stdout


def test_without_a_hub_there_is_no_token():
    assert take_token(app_with(SimpleNamespace()), {}) == ""


def test_a_hidden_process_cannot_be_read_by_its_own_person():
    """The flag itself is looked at: as root everything may be read whatever the flag says."""
    program = (
        "import ctypes, dcde_lab.hub_token as h\n"
        "libc = ctypes.CDLL(None)\n"
        "before = libc.prctl(3, 0, 0, 0, 0)\n"  # PR_GET_DUMPABLE
        "print(h.hide_process(), before, libc.prctl(3, 0, 0, 0, 0))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={"PYTHONPATH": _path()})
    assert said.stdout.split() == ["True", "1", "0"], said.stderr


def _path() -> str:
    return os.pathsep.join(sys.path)
