"""Concurrent runs on one machine, each in a process with its own GPU or a share of the CPUs.

If a process dies, its run is recorded as an error, and a new process replaces it.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from benchmarks.engines.messages import Message, Relay
from benchmarks.engines.order import Engine
from benchmarks.errors import InfrastructureError, UnexpectedError, machine_failures
from benchmarks.exits import report_unexpected
from benchmarks.interruption import interruptible
from benchmarks.machine.devices import visible_devices
from benchmarks.machine.monitor import available_cpus
from benchmarks.machine.roofline import Ceiling
from benchmarks.results.records import Record
from benchmarks.runs.plan import Plan, PlannedRun
from benchmarks.runs.progress import Display
from benchmarks.runs.runner import Runner
from benchmarks.suite import Configuration
from hw6core.errors import HW6Error

_END_S = 60.0  # for a worker to save the state of its training


class _Worker:
    """A process, whether it is ready (has read the data), and its current run."""

    def __init__(self, plan: Plan, index: int) -> None:
        context = multiprocessing.get_context("spawn")  # a forked process could not use CUDA
        self.connection, other = context.Pipe()
        self.process: BaseProcess = context.Process(target=_work, args=(other, plan, index), daemon=True)
        self.process.start()
        other.close()
        self.index = index
        self.ready = False
        self.run: PlannedRun | None = None

    def close(self) -> None:
        self.process.join()
        self.connection.close()


class Workers(Engine):
    """The engine of several processes on this machine."""

    def __init__(self, plan: Plan, display: Display) -> None:
        super().__init__(plan, display)
        self._pending: deque[PlannedRun] = deque()
        self._workers: list[_Worker] = []
        self._ceiling: Ceiling | None = None

    def begin(self) -> None:
        """Start the processes; each reads the data, then sends "ready"."""
        for index in range(self._plan.workers):
            self._workers.append(_Worker(self._plan, index))

    def start(self, configuration: Configuration, seed: int) -> None:
        self._pending.append((configuration, seed))

    def next_record(self) -> Record:
        while not self._finished:
            self._assign_runs()
            readable = wait([worker.connection for worker in self._workers])
            for worker in [worker for worker in self._workers if worker.connection in readable]:
                self._receive(worker)
        return self._finished.popleft()

    def end(self) -> None:
        """End every process: idle ones at once, the others when the training has saved its state."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(_END_S)
            worker.process.kill()
            worker.close()

    def _assign_runs(self) -> None:
        for worker in self._workers:
            if worker.ready and worker.run is None and self._pending:
                if self._ceiling is None and any(other.run for other in self._workers):
                    return  # the first run measures the device's limits for all, which needs an idle device
                worker.run = self._pending.popleft()
                with suppress(OSError):  # the process died, which `_receive` notices next
                    worker.connection.send((worker.run, self._ceiling))

    def _receive(self, worker: _Worker) -> None:
        try:
            kind, content = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            code = worker.process.exitcode or 0
            end = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            self._replace(worker, InfrastructureError(f"a worker {end} before its first run"), f"its process {end}")
            return
        if kind == "ready":
            worker.ready = True
        elif kind == "ceiling":
            self._ceiling = content
        elif kind == "finished":
            worker.run = None
            self._finished.append(*content)
        elif kind == "failed":
            (error,) = content
            self._replace(worker, error, str(error))
        else:
            self._show((kind, content))

    def _replace(self, worker: _Worker, error: HW6Error, reason: str) -> None:
        """Record the run of a process that died, or failed for lack of data or its device, as lost.

        Start a new process in its place, unless it failed before it was ready. Raise the error if none is left.
        """
        worker.close()
        self._workers.remove(worker)
        if worker.run is not None:
            self._finished.append(self._record_of_lost(*worker.run, reason))
        if worker.run is not None or worker.ready:
            self._workers.append(_Worker(self._plan, worker.index))
        elif not self._workers:
            raise error


def _work(connection: Connection, plan: Plan, index: int) -> None:
    """The main function of a worker process."""
    if plan.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible_devices(plan.gpus)[index % plan.gpus]
    torch.set_num_threads(max(available_cpus() // plan.workers, 1))

    def send(message: Message) -> None:
        try:
            connection.send(message)
        except OSError:  # the main process died; end, as another one may start using the results folder
            raise KeyboardInterrupt from None

    with suppress(KeyboardInterrupt), interruptible():
        try:
            with machine_failures():
                _serve(connection, Runner(plan, Relay(send)))
        except HW6Error as error:
            send(("failed", (error,)))
        except Exception as error:
            send(("failed", (UnexpectedError(report_unexpected(error, plan.results)),)))


def _serve(connection: Connection, runner: Runner) -> None:
    runner.prepare()
    runner.on_ceiling = lambda ceiling: connection.send(("ceiling", ceiling))
    connection.send(("ready", ()))
    while True:
        try:
            run, runner.known_ceiling = connection.recv()
        except (EOFError, OSError):  # the main process died
            return
        connection.send(("finished", (runner.record_of(*run),)))
