import os
import signal
import threading

import pytest

from chibit.core.signals import NUMBERS, PASSED_ON, Interrupted, Stopped, StopRequests, interruptible


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


@pytest.mark.skipif(PASSED_ON in NUMBERS, reason="this system has no signal for it")
@pytest.mark.parametrize(
    "order", [(signal.SIGTERM, PASSED_ON), (PASSED_ON, signal.SIGTERM), (PASSED_ON,) * 2]
)
def test_what_a_driver_passes_on_is_no_second_request(order):
    before = signal.signal(PASSED_ON, signal.default_int_handler)  # as a process of a pool has it
    try:
        with interruptible(), StopRequests() as stop:
            for number in order:
                signal.raise_signal(number)
            assert stop.signal_number in (signal.SIGTERM, signal.SIGINT)
        with pytest.raises(Interrupted), interruptible():
            try:
                signal.raise_signal(order[0])
            finally:  # nor does it end what is cleaned up
                signal.raise_signal(PASSED_ON)
        with pytest.raises(Interrupted), interruptible(), StopRequests():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(PASSED_ON, before)


def test_in_another_thread_it_does_nothing():
    seen = []

    def work():
        with StopRequests() as stop:
            seen.append(stop.signal_number)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]
