"""`rootstock …`: what is not a stage. The Makefile calls it; each command says in `--help` what it does."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rootstock import layout
from rootstock.ops.stage import plain_errors

# Imports stay inside the commands: `configure` must not wait for torch, `--help` for nothing.


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; what a person can mend ends with a message and status 1."""
    args = _parser().parse_args(arguments)
    with plain_errors():
        if not Path("dvc.yaml").is_file():
            raise FileNotFoundError(f"{Path.cwd()} holds no dvc.yaml; run this in the project's folder")
        args.run(args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rootstock",
        usage="rootstock [-h] command …",
        description="Raw images to a judged classifier. `make help` lists the usual ways in; these are their parts.",
    )
    commands = parser.add_subparsers(title="commands", metavar="command", required=True)

    def add(run, name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        command.set_defaults(run=run)
        return command

    command = add(_configure, "configure", "compose conf/ into params.yaml; without a choice, keep the one it notes")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="data=mine, pretrain.training.epochs=20, …")
    add(_recheck, "recheck", "compare the raw archives with what fetch noted; fetch again where they differ")
    add(_mend, "mend", "mend what a killed dvc left: a dvc.lock that broke off, entries of dead processes, half files")
    add(_summary, "summary", "print the replicas' results, the verdict, and where to look next")
    command = add(_compare, "compare", "compare two replicas, image by image: is the difference more than noise?")
    command.add_argument("a", help="a replica such as scratch-0, or a predictions.parquet")
    command.add_argument("b", help="another; the difference is b − a")
    command.add_argument("--split", choices=("val", "test"), default="test", help="whose images are compared (test)")
    command.add_argument("--view", choices=("center", "ten"), default="center", help="crops an image (center)")
    command = add(_results, "results", "write the results into docs/results, for `make docs`")
    command.add_argument("--name", required=True, help="of the table: docs/results/<name>.json")
    command.add_argument("--title", required=True, help="what was measured, in words")
    add(_docs, "docs", "write the tables of docs/results into README and docs")
    add(_deps, "deps", "write the modules that each stage imports into dvc.yaml")
    command = add(
        _promote,
        "promote",
        "judge the chosen replica against the champion; status 0 whether promoted or refused, 1 for errors",
    )
    command.add_argument("--without-champion", metavar="reason", help="where its files are lost: judge against nobody")
    command = add(_rollback, "rollback", "bring back the champion before the present one")
    command.add_argument("--reason", metavar="text", help="why, for the ledger reports/promotions.jsonl")
    add(_tidy, "tidy", "remove what replicas left that params.yaml no longer names")
    command = add(_experiment, "experiment", "try other values in a copy of the project, now or queued (dvc exp run)")
    command.add_argument("overrides", nargs="+", metavar="key=value", help="a sweep lists several: key=1,2,3")
    command.add_argument("--queue", action="store_true", help="for `dvc queue start`, several at a time")
    command.add_argument("--name", help="of the experiment; in a sweep the names end in -1, -2, …")
    add(_reconcile, "reconcile", "send MLflow what ended runs left unsent; close the runs whose process is gone")
    command = add(_retrain, "retrain", "retrain where something changed: judge, push data and a branch, propose it")
    command.add_argument("--dry", action="store_true", help="only say what would be done")
    command = add(_explain, "explain", "say why each stage will rerun, and what it took last time; runs nothing")
    command.add_argument("stage", nargs="?", help="this one in detail, such as finetune@full-0, or finetune")
    add(_doctor, "doctor", "check environment, machine, disk, DVC, git, MLflow's store and data, and say what to do")
    command = add(_lineage, "lineage", "print where a model comes from: archives, data, runs, evaluation, decision")
    command.add_argument("model", help="full-0, champion, a path, an MLflow run id, or models:/name/version")
    command.add_argument("--verify", action="store_true", help="rehash all that is here; status 1 where it differs")
    command.add_argument("--json", action="store_true", help="for machines, with whole hashes")
    command = add(_reproduce, "reproduce", "rebuild a model from nothing at its recorded revision; is it the same?")
    command.add_argument("model", help="as for lineage")
    command.add_argument("--keep", action="store_true", help="leave the worktree in .rootstock/reproduce")
    command = add(_ui, "ui", "open MLflow on this project's runs, on this machine only")
    command.add_argument("--port", type=int, default=5000, help="of 127.0.0.1 (5000)")
    return parser


def _configure(args: argparse.Namespace) -> None:
    from rootstock.ops.configuration import choice, configure

    overrides = args.overrides or (choice(layout.PARAMS) if layout.PARAMS.is_file() else [])
    changes = configure(layout.PARAMS, conf=layout.CONF, overrides=overrides)
    kept = ", as before; data=demo goes back to the default" if overrides and not args.overrides else ""
    print(f"{layout.PARAMS}: {' '.join(overrides) or 'the defaults of conf/config.yaml'}{kept}")
    shown = 12
    for change in changes[:shown]:
        print(f"  {change}")
    if len(changes) > shown:
        print(f"  … and {len(changes) - shown} more")


def _recheck(args: argparse.Namespace) -> None:
    from rootstock.ops import recheck

    for dataset in layout.DATASETS:
        differences = recheck.changed(dataset)
        if not differences:
            continue
        print(f"{dataset}: the archives are not those that fetch saw:")
        for difference in differences[:5]:
            print(f"  {difference}")
        if len(differences) > 5:
            print(f"  … and {len(differences) - 5} more")
        sys.stdout.flush()
        status = recheck.fetch_again(dataset)
        if status:
            sys.exit(status)


def _mend(args: argparse.Namespace) -> None:
    from rootstock.ops import mend

    for line in mend.mend():
        print(line)


def _summary(args: argparse.Namespace) -> None:
    from rootstock.ops import results

    print(results.summary(results.gather()))


def _compare(args: argparse.Namespace) -> None:
    from rootstock.evaluation import compare, predictions

    (a, facts), (b, _) = (predictions.read(layout.predictions_of(name)) for name in (args.a, args.b))
    pairs = compare.align(a, b, split=args.split, view=args.view)
    names = {"a": args.a, "b": args.b, "split": args.split, "view": args.view}
    print(compare.describe(pairs, class_names=facts["class_names"], **names))


def _results(args: argparse.Namespace) -> None:
    from rootstock.ops import documents, results

    path = documents.RESULTS / f"{args.name}.json"
    results.write(path, results.measured(results.gather(), title=args.title))
    print(f"wrote {path}; `make docs` puts it into the documents")


def _docs(args: argparse.Namespace) -> None:
    from rootstock.ops import documents

    for path in documents.update(Path()):
        print(f"wrote {path}")


def _deps(args: argparse.Namespace) -> None:
    from rootstock.ops import dependencies

    for stage in dependencies.write(Path("dvc.yaml"), root=Path()):
        print(f"dvc.yaml: {stage}")


def _promote(args: argparse.Namespace) -> None:
    from rootstock.ops.promotion import promote

    promote.promote(without_champion=args.without_champion)


def _rollback(args: argparse.Namespace) -> None:
    from rootstock.ops.promotion import promote

    promote.rollback(reason=args.reason)


def _tidy(args: argparse.Namespace) -> None:
    from rootstock.ops import tidy

    for path in tidy.leftovers():
        tidy.remove(path)
        print(f"removed {path}")


def _experiment(args: argparse.Namespace) -> None:
    from rootstock.ops import experiment
    from rootstock.ops.configuration import choice

    asked = {"queue": args.queue, "name": args.name}
    command = experiment.prepare(layout.CONF, choice=choice(layout.PARAMS), overrides=args.overrides, **asked)
    status = experiment.run(command)
    if status:
        sys.exit(status)
    print(experiment.advice(**asked))


def _reconcile(args: argparse.Namespace) -> None:
    from rootstock.ops import tracking

    for run_id in tracking.reconcile(store=layout.project()):
        print(f"closed or completed run {run_id}")


def _retrain(args: argparse.Namespace) -> None:
    from rootstock.ops.retraining import retrain

    status = retrain.retrain(dry=args.dry, say=lambda line: print(line, flush=True))
    if status:
        sys.exit(status)


def _explain(args: argparse.Namespace) -> None:
    from rootstock.ops.explanation import explain

    outlook = explain.examine()
    print(explain.detail(outlook, args.stage) if args.stage else explain.summary(outlook))


def _doctor(args: argparse.Namespace) -> None:
    from rootstock.ops.doctor import doctor, finding

    findings = doctor.examine()
    print(finding.text(findings))
    if any(found.level == finding.FAIL for found in findings):
        sys.exit(1)


def _lineage(args: argparse.Namespace) -> None:
    from rootstock.ops.lineage import lineage, subject, verify

    traced = lineage.trace(subject.find(args.model))
    if not args.json:
        print(lineage.text(traced), flush=True)
    checked = verify.verify(traced.subject) if args.verify else None
    if args.json:
        print(lineage.to_json(traced, checked))
    elif checked is not None:
        print(lineage.verdict(checked))
    if checked is not None and lineage.first_difference(checked):
        sys.exit(1)


def _reproduce(args: argparse.Namespace) -> None:
    from rootstock.ops.reproduction import reproduce

    report = reproduce.reproduce(args.model, keep=args.keep, say=lambda line: print(line, flush=True))
    print(report.text)
    if not report.outcome.is_good:
        sys.exit(1)


def _ui(args: argparse.Namespace) -> None:
    from rootstock.ops import ui

    ui.serve(layout.project(), port=args.port)


if __name__ == "__main__":
    main()
