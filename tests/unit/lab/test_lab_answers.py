"""Which HTTP status each error of the library becomes, and which operations may be asked for."""

import pytest
from dcde import errors
from dcde_lab.answers import CHANGING, OPERATIONS, READING, not_connected, status_of


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.UsageError("x"), 400),
        (errors.InvalidParameter("x"), 400),
        (errors.TemplateError("x"), 400),
        (errors.NotAllowed("x"), 403),
        (errors.PathRefused("x"), 403),
        (errors.UnknownName("x"), 404),
        (errors.NotFound("x"), 404),
        (errors.AlreadyExists("x"), 409),
        (errors.RunnerBusy("x"), 409),
        (errors.DiskFull("x"), 507),
        (errors.LinkRefused("x"), 502),
        (errors.LinkLost("x"), 503),
        (errors.BrokerUnreachable("x"), 503),
        (errors.RunnerUnreachable("x"), 503),
        (errors.RunnerError("x"), 502),
        (errors.DcdeError("x"), 500),
        (not_connected(), 503),
    ],
)
def test_status(error: errors.DcdeError, status: int):
    assert status_of(error) == status


def test_no_operation_is_both_reading_and_changing_and_watch_is_no_operation():
    assert not READING & CHANGING
    assert not {"watch", "runs.picture"} & OPERATIONS
