import os
import signal
import threading

import pytest

from chibit.core.signals import Stopped, StopRequests


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_first_signal_is_noted_and_the_second_acts(number, code):
    caught = []
    previous = signal.signal(number, lambda *_: caught.append("outer"))
    try:
        with StopRequests() as stop:
            assert stop.signal_number is None
            os.kill(os.getpid(), number)
            assert stop.signal_number == number
            assert caught == []
            os.kill(os.getpid(), number)
            assert caught == ["outer"]
        os.kill(os.getpid(), number)
        assert caught == ["outer", "outer"]
    finally:
        signal.signal(number, previous)
    assert Stopped(number, "x").exit_code == code


def test_in_another_thread_it_does_nothing():
    seen = []

    def work():
        with StopRequests() as stop:
            seen.append(stop.signal_number)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]
