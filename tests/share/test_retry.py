"""What is tried again, how often, and after how long."""

import email.utils
import threading
import time

import pytest

from rkstore.store.places.retry import WAITS, patiently


class Answer(Exception):
    """What an HTTP client raises."""

    def __init__(self, status, **headers):
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@pytest.fixture
def waited(monkeypatch):
    """The seconds that this thread waited; those that earlier tests left behind sleep as ever."""
    seconds, own, sleep = [], threading.get_ident(), time.sleep

    def wait(duration):
        (seconds.append if threading.get_ident() == own else sleep)(duration)

    monkeypatch.setattr(time, "sleep", wait)
    return seconds


def failing(*errors):
    """Work that fails with these errors, one a time, and then is done."""
    left = list(errors)

    def work():
        if left:
            raise left.pop(0)
        return "done"

    return work


@pytest.mark.parametrize(
    "error",
    [ConnectionResetError(), TimeoutError(), EOFError(), OSError(), *map(Answer, (429, 500, 503))],
)
def test_what_may_pass_is_tried_four_times_after_longer_and_longer(error, waited):
    assert patiently(failing(error, error, error)) == "done"
    assert waited == list(WAITS) == [0.5, 1.0, 2.0]
    with pytest.raises(type(error)):
        patiently(failing(error, error, error, error))


class NoCredentialsError(Exception):
    """As botocore calls it."""


@pytest.mark.parametrize(
    "error",
    [
        *(FileNotFoundError(), PermissionError(), ValueError(), NoCredentialsError()),
        *map(Answer, (401, 403, 404, 416)),
    ],
)
def test_what_stays_is_not_tried_again(error, waited):
    with pytest.raises(type(error)):
        patiently(failing(error))
    assert waited == []


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry_After": "42"}, 42.0),
        ({"RateLimit": '"resolvers";r=0;t=42'}, 42.0),
        ({"Retry_After": "86400"}, 300.0),
        ({"Retry_After": "0"}, 0.5),
        ({"Retry_After": "Fri, 31 Dec 1999 23:59:59 GMT"}, 0.5),
    ],
)
def test_a_server_that_says_when_to_come_back_is_obeyed_for_minutes(headers, seconds, waited):
    assert patiently(failing(Answer(429, **headers))) == "done"
    assert waited == [seconds]


def test_the_moment_to_come_back_may_be_a_date(waited):
    date = email.utils.formatdate(time.time() + 42, usegmt=True)
    assert patiently(failing(Answer(429, Retry_After=date))) == "done"
    assert 40 < waited[0] <= 42
