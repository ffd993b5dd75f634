"""What the commands share: where runs lie, how errors end, how a config is named on the command line."""

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from limbeck_engines import engine_class
from limbeck_engines.artifacts import Layout
from limbeck_engines.base import Engine
from limbeck_engines.store import GroupRow, Store, TaskRow
from limbeck_engines.task import DONE, PENDING, RUNNING
from limbeck_taskgraph.config_file import ConfigError, load_training_config
from limbeck_taskgraph.target_tasks import UnknownStage
from limbeck_taskgraph.training_config import TrainingConfig
from pipeline.common.errors import TransientError, UserError
from pipeline.data.names import split_augmentation
from utils.check_config import check_values
from utils.task_uris import with_local_tasks

EXIT_WRONG_INPUT = 2


def run_command(command: Callable[[], int]) -> int:
    """Run a command's body; errors meant for people are printed, not raised."""
    try:
        return command()
    except ConfigError as error:
        count = str(error).count("\n") + 1
        print(f"error: the training config has {count} error{'s' if count > 1 else ''}:\n{error}", file=sys.stderr)
        return EXIT_WRONG_INPUT
    except (UserError, TransientError, UnknownStage) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_WRONG_INPUT
    except BrokenPipeError:
        # The reader (head, less) has gone; nothing more is to be said to it.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
        return 0


def command_parser(name: str, description: str | None, examples: str) -> argparse.ArgumentParser:
    """The parser of `limbeck <name>`: its module's docstring explains it, examples close its help."""
    return argparse.ArgumentParser(
        prog=f"limbeck {name}",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_group_argument(parser: argparse.ArgumentParser) -> None:
    """`[GROUP]`, to be found by find_group."""
    parser.add_argument("group", nargs="?", help="id of a group, or its beginning (default: the newest)")


def add_config_argument(parser: argparse.ArgumentParser) -> None:
    """`CONFIG` or `--config CONFIG`."""
    parser.add_argument("config_position", nargs="?", metavar="CONFIG", help="a training config (YAML)")
    parser.add_argument("--config", dest="config_flag", metavar="CONFIG", help="the same as a flag")


def add_target_argument(parser: argparse.ArgumentParser) -> None:
    """`--target-stage STAGE`."""
    parser.add_argument("--target-stage", metavar="STAGE", help="what to run up to, instead of the config's")


def config_path(options: argparse.Namespace) -> str:
    """The config that the command line names. Raises UserError when it names none."""
    path: str | None = options.config_flag or options.config_position
    if not path:
        raise UserError("no training config given: name one, such as configs/demo-en-de.yml")
    return path


def read_config(options: argparse.Namespace) -> TrainingConfig:
    """Read and check the config that the command line names, with its target stage, and print its warnings."""
    return read_config_file(config_path(options), options)


def read_config_file(path: str, options: argparse.Namespace) -> TrainingConfig:
    """The same for a config of that path. Tasks of the record that its continuation names become paths or URLs."""
    config = load_training_config(path)
    if target := getattr(options, "target_stage", None):
        config = config.model_copy(update={"target_stage": target})
    shares_files = engine_class(getattr(options, "engine", "local")).shares_files
    store = open_store(getattr(options, "runs", None) or default_runs())
    config = with_local_tasks(config, store, as_paths=shares_files)
    if shares_files:
        config = with_absolute_paths(config)
    check_values(config)
    for warning in config.warnings():
        print(f"warning: {warning}", file=sys.stderr)
    return config


def with_absolute_paths(config: TrainingConfig) -> TrainingConfig:
    """The config with its `file_` data sets named by absolute paths: tasks run in folders of their own."""

    def absolute(name: str) -> str:
        importer, _, path = name.partition("_")
        if importer != "file":
            return name
        augmentation, place = split_augmentation(path)
        prefix = f"file_aug-{augmentation}_" if augmentation else "file_"
        return f"{prefix}{Path(os.path.expandvars(place)).expanduser().absolute()}"

    names = {use: [absolute(name) for name in listed] for use, listed in config.datasets.model_dump().items()}
    cleaning = config.experiment.cleaning
    rules = {absolute(name): rule for name, rule in cleaning.datasets.items()}
    experiment = {"cleaning": cleaning.model_copy(update={"datasets": rules})}
    return config.model_copy(
        update={
            "datasets": config.datasets.model_copy(update=names),
            "experiment": config.experiment.model_copy(update=experiment),
        }
    )


def default_runs() -> Path:
    """The folder of runs when none is named."""
    return Path(os.environ.get("LIMBECK_RUNS", "runs"))


def add_runs_argument(parser: argparse.ArgumentParser) -> None:
    """`--runs FOLDER`, where the local engine keeps everything."""
    parser.add_argument(
        "--runs",
        type=Path,
        default=default_runs(),
        help="the folder of runs: state, logs and artifacts (default: $LIMBECK_RUNS or ./runs)",
    )


def open_store(runs: Path) -> Store | None:
    """The record of a runs folder; None, and nothing is made, where nothing has run yet."""
    if not Layout(runs).database.exists():
        return None
    store = Store(runs)
    catch_up(store)
    return store


def catch_up(store: Store) -> None:
    """Write down what groups have done that go on without a process here, and leave their artifacts in the folder."""
    for group in store.groups():
        if group.state == RUNNING and group.engine != "local":
            engine = open_engine(store, group)
            if engine.shares_files and not engine.attended:
                engine.status(group.group_id)


def open_engine(store: Store, group: GroupRow) -> Engine:
    """The engine that a group was handed to."""
    return engine_class(group.engine)(store.layout.root)


def existing_store(runs: Path) -> Store:
    """The record of a runs folder. Raises UserError where nothing has run yet."""
    store = open_store(runs)
    if store is None:
        raise UserError(f"nothing has run in {runs} yet")
    return store


def find_group(store: Store, group_id: str | None) -> GroupRow:
    """The group whose id begins so, or the newest. Raises UserError when there is none, or more than one."""
    groups = store.groups()
    if not groups:
        raise UserError(f"nothing has run in {store.layout.root} yet")
    if group_id is None:
        return groups[0]
    found = [group for group in groups if group.group_id.startswith(group_id)]
    if len(found) != 1:
        count = "no run" if not found else f"{len(found)} runs"
        raise UserError(f"the id of {count} in {store.layout.root} begins with {group_id}: limbeck runs lists them")
    return found[0]


def find_task(store: Store, name: str, done: bool = False) -> TaskRow:
    """The task with that id, or the newest with that label (`done`: the newest that is finished).

    Raises UserError with the nearest label when there is none.
    """
    row = store.find_task(name)
    if row:
        return row
    for group in store.groups():
        # What goes on elsewhere is recorded when somebody asks.
        if group.url and group.state in (PENDING, RUNNING):
            open_engine(store, group).status(group.group_id)
    row = store.find_task(name)
    if row:
        return row
    labels: dict[str, None] = {}
    for group in store.groups():
        for task in store.tasks(group.group_id):
            if task.label == name and (not done or task.state in DONE):
                return task
            labels[task.label] = None
    finished = "finished " if done else ""
    raise UserError(f"no {finished}task {name} in {store.layout.root}{did_you_mean(name, labels)}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error: the nearest of what there is, if anything is near."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close and close[0] != name else ""
