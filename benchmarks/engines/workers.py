"""Several runs at once on one machine: a process for each, on a GPU of its own or on a share of the processor.

A process that dies costs the run that it was at, whose record then says so; another one takes its place.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from benchmarks.engines.messages import Message, Relay, Screen
from benchmarks.engines.order import in_order
from benchmarks.errors import InfrastructureError, UnexpectedError, machine_failures
from benchmarks.exits import unexpected
from benchmarks.interruption import interruptible
from benchmarks.machine.devices import visible_devices
from benchmarks.machine.monitor import available_cpus
from benchmarks.machine.roofline import Ceiling
from benchmarks.results.records import Record, read_record, record_path, write_record
from benchmarks.runs.plan import Plan, PlannedRun, run_name
from benchmarks.runs.progress import Display
from benchmarks.runs.runner import Runner, check_looked_at, leave_lost, lost, under_way, verdict_and_scores
from benchmarks.suite import Configuration
from hw6core.errors import DataError, HW6Error

_END_S = 60.0  # for a worker to save what it is at


def run_on_workers(plan: Plan, display: Display) -> list[Record]:
    """Carry out a plan by `plan.workers` processes; see `benchmarks.engines.engine.execute_plan`."""
    with under_way(plan, display):
        workers = Workers(plan, display)
        try:
            workers.begin()
            records = in_order(plan, workers)
        finally:
            workers.end()
        check_looked_at(workers.passed_over)
        return records


class _Worker:
    """One process, the run that it is at and whether it has begun it, and whether it has read the data."""

    def __init__(self, plan: Plan, place: int) -> None:
        context = multiprocessing.get_context("spawn")  # a forked process could not use CUDA
        self.connection, other = context.Pipe()
        self.process: BaseProcess = context.Process(target=_work, args=(other, plan, place), daemon=True)
        self.process.start()
        other.close()
        self.place = place
        self.ready = False
        self.run: PlannedRun | None = None
        self.begun = False

    def close(self) -> None:
        self.process.join()
        self.connection.close()


class Workers:
    """`benchmarks.engines.order.Engine` of several processes."""

    def __init__(self, plan: Plan, display: Display) -> None:
        self._plan, self._screen = plan, Screen(display)
        self._pending: deque[PlannedRun] = deque()
        self._over: deque[Record] = deque()
        self._workers: list[_Worker] = []
        self._any_was_ready = False
        self._ceiling: Ceiling | None = None
        self._failure: HW6Error | None = None  # why no process is left
        self.passed_over: list[Record] = []  # see `benchmarks.runs.runner.leave_lost`

    def begin(self) -> None:
        """Start the processes; they read the data, and say when they are ready."""
        for place in range(self._plan.workers):
            self._workers.append(_Worker(self._plan, place))

    def start(self, configuration: Configuration, seed: int) -> None:
        self._pending.append((configuration, seed))

    def next_over(self) -> Record:
        while not self._over:
            if self._failure is not None:
                # What is pending is lost; what starts from that becomes pending, and is lost next.
                reason = f"no worker is left: {self._failure}"
                self._over.extend(self._record_of_lost(*run, reason, begun=False) for run in self._pending)
                self._pending.clear()
                break
            self._hand_out()
            answered = wait([worker.connection for worker in self._workers])
            for worker in [worker for worker in self._workers if worker.connection in answered]:
                self._hear(worker)
        return self._over.popleft()

    def end(self) -> None:
        """Let every process end: idle ones now, one in a training when it has saved its state."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(_END_S)
            worker.process.kill()
            worker.close()

    def _hand_out(self) -> None:
        for worker in self._workers:
            if worker.ready and worker.run is None and self._pending:
                if self._ceiling is None and any(other.run for other in self._workers):
                    return  # that one measures what the device can do, with nothing beside it, and for all
                worker.run, worker.begun = self._pending.popleft(), False
                with suppress(OSError):  # it died; its end is heard next
                    worker.connection.send((worker.run, self._ceiling))

    def _hear(self, worker: _Worker) -> None:
        try:
            kind, content = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            code = worker.process.exitcode or 0
            end = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            self._lose(worker, InfrastructureError(f"a worker {end} before its first run"), f"its process {end}")
            return
        if kind == "ready":
            worker.ready = self._any_was_ready = True
        elif kind == "ceiling":
            self._ceiling = content
        elif kind == "over":
            worker.run = None
            self._over.append(*content)
        elif kind == "failed":
            (error,) = content
            self._lose(worker, error, str(error))
        else:
            worker.begun |= kind == "begin"
            self._screen.show((kind, content))

    def _lose(self, worker: _Worker, error: HW6Error, reason: str) -> None:
        """A process is gone, or cannot work for want of data or of its device: its run is lost, the others go on.

        So does a new process in its place, unless this one came to nothing.
        """
        worker.close()
        self._workers.remove(worker)
        if worker.run is not None:
            self._over.append(self._record_of_lost(*worker.run, reason, begun=worker.begun))
        if worker.run is not None or worker.ready:
            self._workers.append(_Worker(self._plan, worker.place))
        elif not self._workers:
            if not self._any_was_ready:
                raise error
            self._failure = error

    def _record_of_lost(self, configuration: Configuration, seed: int, reason: str, *, begun: bool) -> Record:
        """What the process itself wrote after it had begun, or else the reason."""
        record = lost(self._plan, configuration, seed, reason)
        if not begun:
            if not leave_lost(self._plan, record):
                self.passed_over.append(record)
        else:
            try:
                record = read_record(record_path(self._plan.results, configuration.id, seed))
            except DataError:
                write_record(self._plan.results, record)
        self._screen.show(
            ("finish", (run_name(configuration, seed), *verdict_and_scores(record, configuration, reason)))
        )
        return record


def _work(connection: Connection, plan: Plan, place: int) -> None:
    """A worker's whole life."""
    if plan.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible_devices(plan.gpus)[place % plan.gpus]
    torch.set_num_threads(max(available_cpus() // plan.workers, 1))

    def tell(message: Message) -> None:
        try:
            connection.send(message)
        except OSError:  # the suite is gone: nobody waits for this, and another one may be at work in the folder
            raise KeyboardInterrupt from None

    with suppress(KeyboardInterrupt), interruptible():
        try:
            with machine_failures():
                _serve(connection, Runner(plan, Relay(tell)))
        except HW6Error as error:
            tell(("failed", (error,)))
        except Exception as error:
            tell(("failed", (UnexpectedError(unexpected(error, plan.results)),)))


def _serve(connection: Connection, runner: Runner) -> None:
    runner.prepare()
    runner.on_ceiling = lambda ceiling: connection.send(("ceiling", ceiling))
    connection.send(("ready", ()))
    while True:
        try:
            run, runner.known_ceiling = connection.recv()
        except (EOFError, OSError):  # the suite is gone
            return
        connection.send(("over", (runner.record_of(*run),)))
