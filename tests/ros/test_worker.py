"""The worker: one thread that builds, runs and closes an engine, and a slot of one."""

import itertools
import queue
import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from robot import PATIENCE, wait_until

from vifa_ros.worker import DEACTIVATED, FAILED, SUPERSEDED, PairCounts, Worker, WorkerError


class Engine:
    """Remembers which threads built and closed it."""

    def __init__(self) -> None:
        self.built_in = threading.current_thread()
        self.closed_in: list[threading.Thread] = []

    def close(self) -> None:
        self.closed_in.append(threading.current_thread())


class Bench:
    """A worker whose handling of pairs is decided from outside, one pair at a time."""

    def __init__(self, build=Engine) -> None:
        self.outcomes: queue.Queue = queue.Queue()
        self.handled: list = []
        self.ran_in: set[threading.Thread] = set()
        self.errors: list[BaseException] = []
        self.worker: Worker = Worker(build, self._handle, self.errors.append)

    def _handle(self, engine: Engine, pair: object) -> str | None:
        self.ran_in.add(threading.current_thread())
        self.handled.append(pair)
        outcome = self.outcomes.get()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def start(self) -> Engine:
        engine = self.worker.start(PATIENCE)
        self.worker.accept()
        return engine

    def submit_and_wait_until_it_runs(self, pair: object) -> None:
        self.worker.submit(pair)
        wait_until(lambda: self.handled[-1:] == [pair], f"{pair} to be handled")

    def wait_for(self, expected: PairCounts) -> None:
        wait_until(lambda: self.worker.counts() == expected, f"{expected}; it is {self.worker.counts()}")


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    for _ in range(10):
        bench.outcomes.put(None)
    bench.worker.stop(PATIENCE)


def test_a_slot_for_several_keeps_their_order_and_the_newest(bench):
    bench.worker.start(PATIENCE)
    bench.worker.accept(capacity=3)
    bench.submit_and_wait_until_it_runs("first")
    for pair in "abcde":
        bench.worker.submit(pair)
    bench.wait_for(PairCounts(6, 0, 4, {SUPERSEDED: 2}))
    for _ in range(4):
        bench.outcomes.put(None)
    bench.wait_for(PairCounts(6, 4, 0, {SUPERSEDED: 2}))
    assert bench.handled == ["first", "c", "d", "e"]


def test_a_slot_that_becomes_smaller_keeps_the_newest(bench):
    bench.worker.start(PATIENCE)
    bench.worker.accept(capacity=3)
    bench.submit_and_wait_until_it_runs("first")
    for pair in "abc":
        bench.worker.submit(pair)
    bench.worker.resize(1)
    assert bench.worker.counts() == PairCounts(4, 0, 4, {})
    bench.worker.submit("d")
    bench.wait_for(PairCounts(5, 0, 2, {SUPERSEDED: 3}))


def test_all_that_wait_are_dropped_when_it_refuses(bench):
    bench.worker.start(PATIENCE)
    bench.worker.accept(capacity=3)
    bench.submit_and_wait_until_it_runs("first")
    bench.worker.submit("second")
    bench.worker.submit("third")
    bench.worker.refuse(0.0)
    assert bench.worker.counts() == PairCounts(3, 0, 1, {DEACTIVATED: 2})


def test_a_pair_is_handled_and_counted(bench):
    bench.start()
    bench.outcomes.put(None)
    bench.worker.submit("pair")
    bench.wait_for(PairCounts(1, 1, 0, {}))
    assert bench.handled == ["pair"]


def test_the_newest_pair_replaces_the_one_that_waits(bench):
    bench.start()
    bench.submit_and_wait_until_it_runs(1)
    for pair in (2, 3, 4):
        bench.worker.submit(pair)
    assert bench.worker.counts() == PairCounts(4, 0, 2, {SUPERSEDED: 2})
    bench.outcomes.put(None)
    bench.outcomes.put(None)
    bench.wait_for(PairCounts(4, 2, 0, {SUPERSEDED: 2}))
    assert bench.handled == [1, 4]


def test_a_reason_from_the_handler_counts_as_a_drop(bench):
    bench.start()
    bench.outcomes.put("bad_image")
    bench.worker.submit(1)
    bench.wait_for(PairCounts(1, 0, 0, {"bad_image": 1}))


def test_it_goes_on_after_a_failure(bench):
    bench.start()
    bench.outcomes.put(RuntimeError("the engine broke"))
    bench.worker.submit(1)
    bench.wait_for(PairCounts(1, 0, 0, {FAILED: 1}))
    bench.outcomes.put(None)
    bench.worker.submit(2)
    bench.wait_for(PairCounts(2, 1, 0, {FAILED: 1}))
    assert [str(error) for error in bench.errors] == ["the engine broke"]


def test_nothing_is_taken_before_it_accepts(bench):
    bench.worker.start(PATIENCE)
    bench.worker.submit(1)
    assert bench.worker.counts() == PairCounts(1, 0, 0, {DEACTIVATED: 1})
    assert bench.handled == []


def test_refusing_drops_the_waiting_pair_and_lets_the_running_one_end(bench):
    bench.start()
    bench.submit_and_wait_until_it_runs(1)
    bench.worker.submit(2)
    ending = threading.Thread(target=bench.worker.refuse, args=(PATIENCE,))
    ending.start()
    wait_until(lambda: bench.worker.counts().dropped, "the waiting pair to be dropped")
    assert ending.is_alive()
    bench.outcomes.put(None)
    ending.join(PATIENCE)
    bench.worker.submit(3)
    assert bench.worker.counts() == PairCounts(3, 1, 0, {DEACTIVATED: 2})


def test_accepting_again_counts_from_zero(bench):
    bench.start()
    bench.outcomes.put(None)
    bench.worker.submit(1)
    bench.wait_for(PairCounts(1, 1, 0, {}))
    bench.worker.refuse(PATIENCE)
    bench.worker.accept()
    assert bench.worker.counts() == PairCounts(0, 0, 0, {})


def test_a_failing_build_is_told_by_its_message():
    def build() -> Engine:
        raise ValueError("no such bundle")

    with pytest.raises(WorkerError, match="no such bundle"):
        Bench(build).worker.start(PATIENCE)


def test_a_slow_build_is_given_up_and_its_engine_closed_when_it_is_there():
    may_go_on, engines = threading.Event(), []

    def build() -> Engine:
        may_go_on.wait(PATIENCE)
        engines.append(Engine())
        return engines[0]

    with pytest.raises(WorkerError, match=r"not ready after 0\.05 s; raise configure_timeout"):
        Bench(build).worker.start(0.05)
    assert engines == []
    may_go_on.set()
    engine = wait_until(lambda: engines, "the engine")[0]
    wait_until(lambda: engine.closed_in == [engine.built_in], "the engine to be closed where it was built")


def test_the_engine_is_built_run_and_closed_in_one_thread_that_is_not_the_callers(bench):
    engine = bench.start()
    bench.outcomes.put(None)
    bench.worker.submit(1)
    bench.wait_for(PairCounts(1, 1, 0, {}))
    assert bench.worker.stop(PATIENCE)
    assert bench.ran_in == {engine.built_in}
    assert engine.closed_in == [engine.built_in]
    assert engine.built_in is not threading.current_thread()


def test_stopping_gives_up_on_a_pair_that_does_not_end_but_closes_the_engine_after_it(bench):
    engine = bench.start()
    bench.submit_and_wait_until_it_runs(1)
    assert not bench.worker.stop(0.05)
    assert engine.closed_in == []
    bench.outcomes.put(None)
    wait_until(lambda: engine.closed_in == [engine.built_in], "the engine to be closed")


def test_stopping_twice_is_harmless(bench):
    engine = bench.start()
    assert bench.worker.stop(PATIENCE)
    assert bench.worker.stop(PATIENCE)
    assert len(engine.closed_in) == 1


def test_the_law_of_pairs_holds_while_many_threads_submit():
    results = itertools.cycle([None, "bad_image", RuntimeError("broken")])

    def handle(engine: Engine, pair: object) -> str | None:
        result = next(results)
        if isinstance(result, Exception):
            raise result
        return result

    worker = Worker(Engine, handle, lambda error: None)
    worker.start(PATIENCE)
    worker.accept()
    threads = [threading.Thread(target=lambda: [worker.submit("pair") for _ in range(2000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert law_holds(worker.counts())
    wait_until(lambda: worker.counts().in_flight == 0, "the last pair")
    assert law_holds(worker.counts())
    assert worker.counts().formed == 8000
    assert worker.stop(PATIENCE)


def law_holds(counts: PairCounts) -> bool:
    return counts.formed == counts.processed + sum(counts.dropped.values()) + counts.in_flight


class Model:
    """The worker's counts by the book."""

    def __init__(self) -> None:
        self.slot = self.busy = self.accepting = False
        self.formed = self.processed = self.started = 0
        self.dropped: Counter[str] = Counter()

    def counts(self) -> PairCounts:
        return PairCounts(self.formed, self.processed, self.slot + self.busy, dict(+self.dropped))

    def submit(self) -> None:
        self.formed += 1
        if not self.accepting:
            self.dropped[DEACTIVATED] += 1
        elif not self.busy:
            self.busy = True
            self.started += 1
        else:
            self.dropped[SUPERSEDED] += self.slot
            self.slot = True

    def finish(self, outcome: str | Exception | None) -> None:
        self.busy, self.slot = self.slot, False
        self.started += self.busy
        if outcome is None:
            self.processed += 1
        else:
            self.dropped[FAILED if isinstance(outcome, Exception) else outcome] += 1

    def refuse(self) -> None:
        self.accepting = False
        self.dropped[DEACTIVATED] += self.slot
        self.slot = False

    def accept(self) -> None:
        self.accepting = True
        self.formed, self.processed = int(self.busy), 0
        self.dropped.clear()


OUTCOMES = st.sampled_from([None, "bad_image", RuntimeError("broken")])
STEP = st.one_of(
    st.just(("submit",)), st.tuples(st.just("finish"), OUTCOMES), st.just(("refuse",)), st.just(("accept",))
)


@given(st.lists(STEP, max_size=25))
def test_the_counts_follow_any_sequence_of_events(steps):
    bench, model = Bench(), Model()
    bench.start()
    model.accept()
    try:
        for name, *arguments in steps:
            if name == "finish":
                if not model.busy:
                    continue
                bench.outcomes.put(arguments[0])
            elif name == "refuse":
                bench.worker.refuse(0.0)
            else:
                getattr(bench.worker, name)(*["pair"] * (name == "submit"))
            getattr(model, name)(*arguments)
            bench.wait_for(model.counts())
            wait_until(lambda: len(bench.handled) == model.started, "the pair to be taken from the slot")
    finally:
        for _ in range(3):
            bench.outcomes.put(None)
        bench.worker.stop(PATIENCE)
