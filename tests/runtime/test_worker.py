"""Workers: jobs one after the other, what becomes of them where the process ends, and Ctrl-C; what
threads hand one another, and their pauses."""

import signal
import subprocess
import sys
import threading
import time

import pytest
from velatura.runtime.worker import Channel, DaemonThread, Worker

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


def test_a_channel_of_each_policy() -> None:
    oldest, newest = Channel[int]("oldest"), Channel[int]("newest")
    assert [oldest.put(k) for k in range(3)] == [True, False, False]
    assert [newest.put(k) for k in range(3)] == [True, False, False]
    assert (oldest.take(), newest.take()) == (2, 0)
    assert (oldest.dropped, newest.dropped) == (2, 2)
    deep = Channel[int]("oldest", depth=3)
    for k in range(5):
        deep.put(k)
    assert [deep.take() for _ in range(3)] == [2, 3, 4]
    assert len(deep) == 0


def test_a_full_channel_that_drops_nothing_makes_the_sender_wait() -> None:
    box, done = Channel[int]("never"), threading.Event()

    def send() -> None:
        box.put(1)
        box.put(2)
        done.set()

    threading.Thread(target=send, daemon=True).start()
    assert not done.wait(0.1)
    assert box.take() == 1
    assert done.wait(2)
    assert box.take() == 2
    assert box.dropped == 0


@pytest.mark.parametrize("drop", [True, False])
def test_a_closed_channel_gives_out_what_it_has_and_takes_no_more(drop: bool) -> None:
    box = Channel[int]("oldest")
    box.put(1)
    box.close(drop=drop)
    assert not box.put(2)
    assert box.take() == (None if drop else 1)
    assert box.take() is None
    assert box.closed


def test_closing_ends_every_wait() -> None:
    empty, full = Channel[int]("oldest"), Channel[int]("never")
    full.put(0)
    results: list[object] = []
    threads = [
        threading.Thread(target=lambda: results.append(empty.take())),
        threading.Thread(target=lambda: results.append(full.put(1))),
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    empty.close()
    full.close()
    for thread in threads:
        thread.join(2)
    assert sorted(map(str, results)) == ["False", "None"]


def test_taking_from_an_empty_channel_has_its_time() -> None:
    begin = time.monotonic()
    assert Channel[int]("oldest").take(0.1) is None
    assert time.monotonic() - begin > 0.09
    with pytest.raises(ValueError, match="depth 0"):
        Channel("oldest", depth=0)


def test_what_a_dropped_item_carried_goes_on_with_the_newer_one() -> None:
    channel = Channel[str]("oldest", merge=lambda newer, older: older + newer)
    assert [channel.put(k) for k in "abc"] == [True, False, False]
    channel.close()
    assert list(channel) == ["abc"]
    assert channel.dropped == 2
