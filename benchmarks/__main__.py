"""The command line: ``python -m benchmarks COMMAND``; ``--help`` lists the commands."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from benchmarks.exits import REPORT_PACKAGES, RUN_PACKAGES, TORCH_PACKAGES, check_installed, exit_code_of
from benchmarks.interruption import exit_process
from benchmarks.options import OPTIONS, add_options, expand_path, read_option, read_options, read_recorded_options
from benchmarks.runs.plan import SYNTHETIC_FOLDER, Plan
from benchmarks.suite import SUITE
from hw6core.errors import UsageError, visible

if TYPE_CHECKING:  # imports packages that `check_installed` reports first
    from benchmarks.results.records import Record

Parser = argparse.ArgumentParser
Command = Callable[[argparse.Namespace], int]
# The options of `run` that select records or decide how they are judged.
_JUDGING = ("PROFILE", "DATA", "SEEDS", "DEVICE", "RESULTS", "WORKING_SIZE", "ALLOW_NOT_RUN", "UNCLEAR")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done and passed, 1 a gate failed, else see `exit_code_of`."""

    def command() -> int:
        options = _parser().parse_args(arguments)
        check_installed(options.packages)
        return int(options.command(options))

    return exit_code_of(command)


class _Parser(argparse.ArgumentParser):
    """Reports errors as the rest of the suite does: in one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m benchmarks",
        description="Check whether this machine still trains real models to quality, and how fast: "
        "train seven configurations, judge their gates and write a report.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: Command, help_text: str, packages: Mapping[str, str] = REPORT_PACKAGES) -> Parser:
        description = f"{help_text[0].upper()}{help_text[1:]}."
        added: Parser = commands.add_parser(name, help=help_text, description=description)
        added.set_defaults(command=function, packages=packages)
        return added

    add("list", _list, "show the configurations, their gates and the work of a profile", {"tabulate": "tabulate"})
    run = add("run", _run, "train what is missing, judge it and write the report", RUN_PACKAGES)
    judge = add("judge", _judge, "judge records; with --results, without GPU, data or torch")
    report = add("report", _report, "write RESULTS.md and figures; with --results, without GPU, data or torch")
    add_options(run)
    for command in (judge, report):
        add_options(command, _JUDGING)
    run.add_argument("--quiet", action="store_true", help="print only errors and the verdict")
    text = "all runs on each GPU; see fleet"
    run.add_argument("--every-gpu", dest="EVERY_GPU", action="store_const", const="1", help=text)
    run.add_argument("--shard", metavar="I/N", help="run only part I of N; see report --merge")
    text = "first merge these shards' results into RESULTS"
    report.add_argument("--merge", nargs="+", type=expand_path, metavar="DIR", help=text)
    command = add("compare", _compare, "compare two sets of results; exit code 0 no worse, 1 worse, 5 cannot tell")
    command.add_argument("old", type=expand_path, metavar="OLD", help="results folder to compare with")
    command.add_argument("new", type=expand_path, nargs="?", metavar="NEW", help="results folder; default: that of run")
    command.add_argument("--only", dest="ONLY", metavar="IDS", help="configurations, such as 'vgg-scratch vgg-frozen'")
    command.add_argument("--quality-only", action="store_true", help="ignore times, for different kinds of device")
    unclear = "fail (default) or pass if there are too few runs to tell"
    command.add_argument("--unclear", dest="UNCLEAR", metavar="WORD", help=unclear)
    command = add("upgrade", _upgrade, "train in two environments or images in turn; exit codes as for compare")
    for side in ("OLD", "NEW"):
        command.add_argument(side, help="folder with bin/python, a Python interpreter, docker:IMAGE or podman:IMAGE")
    texts = {name: OPTIONS[name].help for name in ("ONLY", "PROFILE", "DATA", "DEVICE")}
    for name, text in (texts | {"RESULTS": "folder; default: results/upgrade", "UNCLEAR": unclear}).items():
        command.add_argument(f"--{name.lower()}", dest=name, metavar=name, help=text)
    text = "at most N seeds per side, and at least 3; default: 10"
    command.add_argument("--seeds", dest="MOST_SEEDS", metavar="N", help=text)
    command.add_argument("--quality-only", action="store_true", help="ignore times and memory")
    command.add_argument("--bisect", action="store_true", help="if it is worse, find the packages at fault; needs uv")
    text = "check that a machine computes the same as before, or as others; exit code 1 differs, 5 cannot tell"
    command = add("fingerprint", _fingerprint, text)
    command.add_argument("files", nargs="*", type=expand_path, metavar="FILE", help="to compare; default: make one")
    text = "fingerprints to compare with; several: find the odd ones"
    command.add_argument("--against", dest="AGAINST", metavar="FILE|FOLDER", help=text)
    command.add_argument("--output", type=expand_path, metavar="FILE", help="default: RESULTS/fingerprint.json")
    command.add_argument("--device", dest="DEVICE", metavar="DEVICE", help="cuda or cpu; default: as for run")
    text = "find odd GPUs among many, and what to do with them; exit code 1 if any needs an action, 5 cannot tell"
    command = add("fleet", _fleet, text)
    command.add_argument("folders", nargs="+", type=expand_path, metavar="DIR", help="results, or folders of them")
    text = "for FLEET.md and others; default: RESULTS, else results/fleet"
    command.add_argument("--output", dest="RESULTS", metavar="DIR", help=text)
    add("smoke", _smoke, "check whether torch sees a GPU, and if not, why; exit code 0 or 4", {"torch": "torch"})
    reference = commands.add_parser("reference", help="make the population that new results are judged by")
    _add_nested_commands(reference, commands.add_parser("data", help="fetch, verify or synthesize the data"))
    return parser


def _add_nested_commands(reference: Parser, data: Parser) -> None:
    commands = reference.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("make", help="condense records into a reference, or add seeds to an existing one")
    command.add_argument("results", nargs="+", type=expand_path, metavar="RESULTS", help="results folders")
    text = "default: references/<profile>-<data>-<precision>.json"
    command.add_argument("--output", type=expand_path, metavar="FILE", help=text)
    command.set_defaults(command=_make_reference, packages=REPORT_PACKAGES)
    commands = data.add_subparsers(required=True, metavar="COMMAND")
    fetch = commands.add_parser("fetch", help="download EndoVis (course subset), Fashion-MNIST and VGG16's weights")
    text = "folder, archive (.zip, .tar, .tar.gz, .tgz) or URL with the EndoVis subset; default: the course repository"
    fetch.add_argument("--source", help=text)
    fetch.add_argument("--mirror", help="URL of a folder with Fashion-MNIST's four files")
    fetch.add_argument("--force", action="store_true", help="replace existing files")
    choices = ("endovis", "fashion-mnist", "vgg16")
    fetch.add_argument("--only", choices=choices, action="append", help="fetch only this; may be repeated")
    verify = commands.add_parser("verify", help="compare every file with its checksum")
    synthesize = commands.add_parser("synthesize", help="draw synthetic data")
    synthesize.add_argument("--seed", type=int, default=0)
    packages, folder = TORCH_PACKAGES | {"numpy": "numpy", "PIL": "pillow"}, Path("data")
    for command, function, root in (
        (fetch, _fetch, folder), (verify, _verify, folder), (synthesize, _synthesize, SYNTHETIC_FOLDER)
    ):  # fmt: skip
        command.add_argument("--root", type=expand_path, default=root, help=f"the data folder; default: {root}")
        command.set_defaults(command=function, packages=packages)


def _list(_: argparse.Namespace) -> int:
    from benchmarks.results.formatting import words

    for entry in SUITE.values():
        full, quick, drawn = (
            f"{work.epochs} epochs at {work.working_size[0]}x{work.working_size[1]}"
            for work in map(entry.work_on, ("full", "quick", "quick"), ("real", "real", "synthetic"))
        )
        facts = {
            "gates": ", ".join(f"{words(gate.metric)} {gate}" for gate in entry.gates),
            "floors": ", ".join(entry.floors),
            "after": ", ".join(entry.requires),
            "full": full,
            "quick": f"{quick}; on synthetic data {drawn}",
        }
        print(f"{entry.id}  {entry.question}  {entry.title}")
        for name, text in facts.items():
            if text:
                print(f"    {name:<7} {text}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from benchmarks.engines.engine import execute_plan
    from benchmarks.engines.shards import parse_shard, write_shard_file
    from benchmarks.report.exports import append_step_summary
    from benchmarks.report.markdown import report_on, summary
    from benchmarks.runs.progress import Display

    plan = read_options(vars(arguments))
    if arguments.shard is not None:
        plan = replace(plan, shard=parse_shard(arguments.shard))
    if read_option("EVERY_GPU", vars(arguments)):
        from benchmarks.every_gpu import run_on_every_gpu

        return run_on_every_gpu(plan, vars(arguments))
    display = Display(io.StringIO() if arguments.quiet else sys.stderr)
    records = execute_plan(plan, display)
    if plan.shard is not None:
        write_shard_file(plan.results, plan.shard, plan.profile, plan.runs)
        return _judge_shard(plan, records)
    report = report_on(plan)
    append_step_summary(report.text)
    display.log(f"report: {report.path}, with report.html beside it")
    print(summary(report.judgement))
    return report.judgement.exit_code


def _judge_shard(plan: Plan, records: Sequence[Record]) -> int:
    """Judge the runs of one shard; the report is made when all shards are merged."""
    from benchmarks.results.gates import Judgement, judge_run

    findings = [
        finding
        for record, (configuration, seed) in zip(records, plan.runs, strict=True)
        if configuration in plan.selected
        for finding in judge_run(record, configuration, seed, plan.profile)
    ]
    judgement = Judgement(findings, plan.asked)
    for finding in judgement.objections:
        print(f"{finding.configuration}, seed {finding.seed}: {finding.verdict}: {visible(finding.reason)}")
    print(f"shard {plan.shard}: {len(records)} runs, {len(judgement.objections)} gates not passed")
    return judgement.exit_code if judgement.objections else 0  # a shard may be empty


def _report(arguments: argparse.Namespace) -> int:
    from benchmarks.engines.shards import merge
    from benchmarks.report.markdown import report_on

    if arguments.merge:
        if not (results := read_option("RESULTS", vars(arguments))):
            raise UsageError("--merge requires --results FOLDER, the folder to merge into")
        merge(arguments.merge, results)
    print(report_on(read_recorded_options(vars(arguments))).path)
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from benchmarks.report.exports import append_step_summary
    from benchmarks.results.comparison import compare
    from benchmarks.results.references import read_references

    new = arguments.new or read_recorded_options({}).results
    unclear_passes = read_option("UNCLEAR", vars(arguments)) == "pass"
    comparison = compare(
        arguments.old,
        new,
        read_option("ONLY", vars(arguments)),
        costs=not arguments.quality_only,
        references=read_references(),
    )
    print(comparison.markdown(), end="")
    append_step_summary(comparison.markdown())
    return comparison.exit_code(unclear_passes=unclear_passes)


def _upgrade(arguments: argparse.Namespace) -> int:
    from benchmarks.report.exports import append_step_summary
    from benchmarks.results.records import write_atomically
    from benchmarks.upgrade import bisection
    from benchmarks.upgrade.session import Session, report
    from benchmarks.upgrade.sides import find_side

    given = vars(arguments)
    options = {name: read_option(name, given) for name in ("ONLY", "PROFILE", "DEVICE", "MOST_SEEDS", "UNCLEAR")}
    session = Session(
        find_side("old", arguments.OLD),
        find_side("new", arguments.NEW),
        (read_option("RESULTS", given) or Path("results/upgrade")).absolute(),
        options["MOST_SEEDS"],
        options["ONLY"],
        {name: value for name in OPTIONS if (value := given.get(name) or os.environ.get(name))},
        costs=not arguments.quality_only,
    )
    if arguments.bisect:
        bisection.check(session)
    inventories, log = (session.old.inventory(), session.new.inventory()), partial(print, flush=True)
    looks = session.run(log)
    text, path = report(session, looks, inventories), session.results / "UPGRADE.md"
    write_atomically(path, text)
    if arguments.bisect and looks[-1].regressions:
        text += bisection.bisect(session, inventories, log)
        write_atomically(path, text)
    append_step_summary(text)
    print(text, f"report: {path}", sep="\n")
    return looks[-1].exit_code(unclear_passes=options["UNCLEAR"] == "pass")


def _make_reference(arguments: argparse.Namespace) -> int:
    from benchmarks.results.references import make_reference

    path, lines = make_reference(arguments.results, arguments.output)
    print("\n".join([*lines, str(path)]))
    return 0


def _fingerprint(arguments: argparse.Namespace) -> int:
    from benchmarks.fingerprint.comparison import judge_files
    from benchmarks.fingerprint.record import FINDINGS, KEPT, LATEST, fingerprint_files, write_fingerprint
    from benchmarks.results.records import write_atomically

    files, folder = arguments.files, read_option("RESULTS", {}) or Path("results")
    if files and arguments.output:
        raise UsageError("--output is for a new fingerprint, but with FILEs none is made; leave out one of them")
    against = read_option("AGAINST", vars(arguments))
    asked = bool(files or against)
    if not files:
        check_installed(RUN_PACKAGES)
        from benchmarks.fingerprint.training import make_fingerprint
        from benchmarks.machine.devices import default_device, open_device

        device = open_device(read_option("DEVICE", vars(arguments)) or default_device())
        # The first one is never overwritten, so that all later ones are compared with it.
        path = arguments.output or folder / (LATEST if (folder / KEPT).exists() else KEPT)
        if against and against.resolve() == path.resolve():
            raise UsageError(f"the new fingerprint would replace {against}, which it is compared with; move that first")
        write_fingerprint(path, make_fingerprint(device))
        files, against = [path], against or (None if arguments.output else folder / KEPT)
    paths = [file for path in (against, *files) if path for file in fingerprint_files(path)]
    lines, code = judge_files(paths, asked=asked)
    print("\n".join(lines))
    if not arguments.files and not arguments.output:
        write_atomically(folder / FINDINGS, "\n".join(lines) + "\n")
    return code


def _fleet(arguments: argparse.Namespace) -> int:
    from benchmarks.every_gpu import judge_folders

    output = read_option("RESULTS", vars(arguments)) or Path("results/fleet")
    return judge_folders(arguments.folders, output, vars(arguments))


def _judge(arguments: argparse.Namespace) -> int:
    from benchmarks.report.markdown import summary
    from benchmarks.results.gates import judge
    from benchmarks.results.records import read_records
    from benchmarks.results.references import read_references

    plan = read_recorded_options(vars(arguments))
    judgement = judge(read_records(plan.results), plan.asked, read_references())
    print(summary(judgement))
    return judgement.exit_code


def _smoke(_: argparse.Namespace) -> int:
    from benchmarks.machine.devices import smoke

    print(smoke())
    return 0


class _Bar:
    """The progress of a download, with the interface that pooch expects."""

    def __init__(self) -> None:
        self._total = self._done = 0

    @property
    def total(self) -> int:
        return self._total

    @total.setter
    def total(self, size: int) -> None:  # set when an attempt begins; 0 if the server does not send the size
        self._total, self._done = size, 0

    def update(self, size: int) -> None:
        self._done += size
        done = min(self._done, self._total or self._done)  # pooch adds the whole size once more at the end
        of = f" of {self._total / 1e6:.0f}" if self._total else ""
        print(f"{done / 1e6:.0f}{of} MB", end="\r", file=sys.stderr, flush=True)

    def reset(self) -> None:
        pass

    def close(self) -> None:
        print(file=sys.stderr)


def _fetch(arguments: argparse.Namespace) -> int:
    from hw6core.data import fetch
    from hw6core.data.checksums import summary, verify

    selected = arguments.only or ["endovis", "fashion-mnist", "vgg16"]
    force, bar = arguments.force, _Bar() if sys.stderr.isatty() else False
    if "endovis" in selected:
        is_kept = not force and (arguments.root / "endovis" / "mapping.json").exists()
        folder = fetch.fetch_endovis(arguments.root, arguments.source, force=force, progressbar=bar)
        if arguments.source and is_kept:
            print(f"{folder} exists and is kept; --force replaces it", file=sys.stderr)
        print(folder)
        if arguments.source and (problems := verify(folder)):
            print(f"{folder}: {summary(problems)}", file=sys.stderr)
    if "fashion-mnist" in selected:
        print(fetch.fetch_fashion_mnist(arguments.root, arguments.mirror, force=force, progressbar=bar))
    if "vgg16" in selected:
        print(fetch.fetch_vgg16_weights(bar))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from hw6core.data.checksums import require_published

    print(f"{arguments.root}: {require_published(arguments.root)} files, all checksums match")
    return 0


def _synthesize(arguments: argparse.Namespace) -> int:
    from hw6core.data.synthetic import synthesize

    synthesize(arguments.root, arguments.seed)
    print(arguments.root)
    return 0


if __name__ == "__main__":
    exit_process(main())
