"""Workers: jobs one after the other, what becomes of them where the process ends, and Ctrl-C."""

import signal
import subprocess
import sys
import threading
import time

import pytest
from velatura.runtime.worker import DaemonThread, Worker

from .ctrl_c import press_later


def test_jobs_are_done_in_their_order_and_their_errors_are_for_who_waits() -> None:
    worker, done = Worker("test"), list[int]()

    def one(number: int) -> int:
        done.append(number)
        return 100 // number

    jobs = [worker.start(lambda k=k: one(k)) for k in (4, 0, 2)]
    assert all(job.wait(10) for job in jobs)
    assert done == [4, 0, 2]
    assert (jobs[0].value, jobs[2].value) == (25, 50)
    with pytest.raises(ZeroDivisionError):
        _ = jobs[1].value
    worker.leave()


def test_a_job_that_is_not_done_is_not_waited_for_any_longer_than_asked() -> None:
    worker, go = Worker("test"), threading.Event()
    job = worker.start(lambda: go.wait(10))
    assert not job.wait(0.01)
    assert not job.done
    go.set()
    assert job.wait(10)
    assert job.value
    worker.leave()


SCRIPT = """
import sys, threading, time
from velatura.runtime.worker import Worker

def say(text, seconds):
    time.sleep(seconds)
    print(text, flush=True)

worker = Worker("test", leaving={leaving})
worker.start(lambda: say("first", {seconds}))
second = worker.start(lambda: say("second", 0))
def beside():  # whoever waits for what is never done learns of it
    print(second.wait(20), flush=True)
    print(worker.start(lambda: say("third", 0)).wait(20), flush=True)
threading.Thread(target=beside, daemon=True).start()
time.sleep(0.1)
"""


def ended(leaving: float, seconds: float) -> tuple[list[str], float]:
    """What a process said that ended while a job of so many seconds was at work, and how long it was
    there."""
    begin = time.monotonic()
    script = SCRIPT.format(leaving=leaving, seconds=seconds)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split(), time.monotonic() - begin


def test_the_process_waits_for_the_job_under_way_and_begins_no_other() -> None:
    said, _ = ended(leaving=30.0, seconds=1.0)
    assert said[0] == "first"
    assert "second" not in said
    assert "third" not in said
    assert set(said[1:]) <= {"False"}


@pytest.mark.parametrize("leaving", [0.0, 0.3])
def test_a_job_that_never_returns_holds_up_no_end(leaving: float) -> None:
    said, seconds = ended(leaving=leaving, seconds=90.0)
    assert not said
    assert seconds < 90


def test_a_thread_is_at_work_until_it_ends_though_ctrl_c_meets_who_waits_for_it() -> None:
    go, done = threading.Event(), threading.Event()
    thread = DaemonThread(lambda: (go.wait(20), done.set()), "test")
    assert thread.wait(), "it was never started"
    assert not thread.at_work
    thread.start()
    with press_later(), pytest.raises(KeyboardInterrupt):
        thread.wait(20)
    assert thread.at_work
    assert not thread.wait(0)
    go.set()
    assert thread.wait(20)
    assert done.is_set()
    assert not thread.at_work


def test_what_must_not_be_cut_off_is_waited_for_whoever_presses_ctrl_c() -> None:
    go = threading.Event()
    thread = DaemonThread(lambda: go.wait(20), "test")
    thread.start()

    def now() -> bool:
        return True

    with press_later(now, now, now, then=go.set):
        assert thread.outwait(20)


def test_the_end_of_a_process_waits_though_ctrl_c_is_pressed_again() -> None:
    """The library that the job is in would abort the process."""
    script = SCRIPT.format(leaving=5.0, seconds=1.0).replace(
        "time.sleep(0.1)", "print('end', flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "end\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[0]
    assert "first" in said.split()
