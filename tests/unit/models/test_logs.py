import io
import json
import logging

import pytest
from dcde_models import logs


@pytest.fixture
def lines():
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.set_up_logs(stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:] = before
    root.setLevel(level)


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: token s3cr3ts3cr3t",
        "Authorization: Bearer s3cr3ts3cr3t",
        "token=s3cr3ts3cr3t",
        "GET /callback?code=s3cr3ts3cr3t&state=x",
        '{"client_secret": "s3cr3ts3cr3t"}',
        "-----BEGIN OPENSSH PRIVATE KEY-----\ns3cr3ts3cr3t",
        "id eyJhbGciOiJI.s3cr3ts3cr3t.x",
    ],
)
def test_secrets_do_not_reach_a_log(lines, text):
    logging.getLogger("x").warning("%s", text)
    assert "s3cr3ts3cr3t" not in json.dumps(lines())


@pytest.mark.parametrize("text", ["the token is fine", "exit code: 12345678", "MotionCorr/job002 at bnl-sdcc"])
def test_ordinary_words_stay(text):
    assert logs.redact(text) == text


def test_the_request_id_and_fields_go_along(lines):
    logs.request_id.set("q0123456789ab")
    logging.getLogger("dcde.x").info("moved", extra={"site": "bnl-sdcc", "step": "ctffind"})
    logs.request_id.set("")
    (line,) = lines()
    assert line["request"] == "q0123456789ab"
    assert (line["site"], line["step"], line["level"]) == ("bnl-sdcc", "ctffind", "info")


def test_a_foreign_request_id_is_replaced():
    assert logs.valid_request_id("q0123456789ab") == "q0123456789ab"
    assert logs.valid_request_id("<script>") != "<script>"
    assert logs.valid_request_id(None).startswith("q")
