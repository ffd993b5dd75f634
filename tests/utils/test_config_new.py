"""Writing a config for a language pair, and checking configs: by the commands themselves, with a catalogue that answers
like the real ones, and without any."""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from web_server import WebServer

from limbeck_taskgraph.config_file import load_training_config, parse_training_config
from pipeline.data.opus_index import Corpus
from utils.check_config import check_values
from utils.config_check import check_config
from utils.config_new import Choice, main
from utils.config_text import config_text, description
from utils.evaluation_sets import evaluation_sets
from utils.schema import markdown_table

LAST_YEAR = datetime.now(tz=UTC).year - 1


def limbeck(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "utils.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def catalogue(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> WebServer:
    """OPUS's API and News Crawl, with what they have for English and German."""
    monkeypatch.setenv("LIMBECK_OPUS_API", f"{web.url}/opusapi/")
    monkeypatch.setenv("LIMBECK_NEWS_CRAWL_URL", f"{web.url}/news-crawl")

    def answer(question: str, *rows: tuple[str, str, int, int, str]) -> None:
        entries = [
            {"corpus": corpus, "version": version, "alignment_pairs": pairs, "size": kibibytes, "url": url}
            for corpus, version, pairs, kibibytes, url in rows
        ]
        web.put(f"/opusapi/?{question}&version=latest", json.dumps({"corpora": entries}).encode())

    answer(
        "source=en&target=de&preprocessing=moses",
        ("Books", "v1", 51_467, 6000, ""),
        ("ParaCrawl", "v8", 200_000_000, 9_000_000, ""),
        ("ParaCrawl", "v9", 278_000_000, 12_000_000, ""),
        ("WMT-News", "v2019", 45_913, 5000, ""),
        ("Europarl", "v10", 1_800_000, 180_000, ""),
    )
    answer("source=en&preprocessing=mono", ("Books", "v1", 0, 70_000, "https://host/OPUS-Books/v1/mono/en.txt.gz"))
    answer("source=de&preprocessing=mono", ("Books", "v1", 0, 30_000, "https://host/OPUS-Books/v1/mono/de.txt.gz"))
    for year, size in ((LAST_YEAR, 1000), (LAST_YEAR - 1, 3000)):
        name = f"news.{year}.de.shuffled.deduped.gz"
        web.put(f"/news-crawl/de/{name}", web.answer(announced=size * 1000))
    return web


def checked(path: Path) -> int:
    """The number of tasks of a config that is right."""
    done = limbeck("config", "check", path)
    assert done.returncode == 0, done.stderr
    found = re.search(r": ok: (\d+) tasks up to all-pipeline", done.stdout)
    assert found
    return int(found[1])


def test_a_config_of_what_the_catalogues_have(catalogue: WebServer, tmp_path: Path) -> None:
    path = tmp_path / "configs" / "first.yml"
    done = limbeck("config", "new", "en", "de", "--name", "first", "--output", path)
    assert done.returncode == 0, done.stderr
    assert f"wrote {path}: 3 corpora with 279,851,467 sentence pairs" in done.stdout
    assert done.stderr == ""
    text, config = path.read_text(), load_training_config(path)
    assert config.experiment.name == "first"
    assert config.datasets.train == ["opus_ParaCrawl/v9", "opus_Europarl/v10", "opus_Books/v1"]
    assert "- opus_ParaCrawl/v9  # 278,000,000 sentences, 12,288.0 MB" in text
    assert "# - opus_ParaCrawl/v8  # an older version of opus_ParaCrawl/v9" in text
    assert "# - opus_WMT-News/v2019  # holds sentences of test sets" in text
    assert config.datasets.devtest[0] == "flores_dev" and config.datasets.test[0] == "flores_devtest"
    assert not set(config.datasets.devtest) & set(config.datasets.test)
    # News Crawl where there is some, the larger year first; otherwise what OPUS has.
    assert config.datasets.mono_trg == [f"news-crawl_news.{LAST_YEAR - 1}", f"news-crawl_news.{LAST_YEAR}"]
    assert "# - opus_Books/v1  # 30.7 MB" in text
    assert config.datasets.mono_src == ["opus_Books/v1"]
    tasks = json.loads(limbeck("graph", path, "--format", "json").stdout)
    assert len(tasks) == checked(path)


def test_a_catalogue_that_cannot_be_reached_is_said_in_the_file_and_to_the_person(
    web: WebServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LIMBECK_OPUS_API", "http://127.0.0.1:9/opusapi/")
    monkeypatch.setenv("LIMBECK_NEWS_CRAWL_URL", "http://127.0.0.1:9")
    path = tmp_path / "config.yml"
    assert main(["ka", "de", "--output", str(path)]) == 0
    said = capsys.readouterr().err
    for use in ("train", "mono-src", "mono-trg"):
        assert f"warning: datasets.{use}: the catalogue could not be reached: http://127.0.0.1:9" in said
    text = path.read_text()
    assert text.count("the catalogue could not be reached") == 3
    assert "# - opus_ParaCrawl/v9" in text and "# - news-crawl_news." in text
    config = load_training_config(path)
    assert config.datasets.train == ["file_data/train.[LANG].zst"]
    assert (config.datasets.devtest, config.datasets.test) == (["flores_dev"], ["flores_devtest"])
    assert checked(path) > 20


def test_nothing_is_asked_offline(catalogue: WebServer, tmp_path: Path) -> None:
    done = limbeck("config", "new", "en", "de", "--offline", "--output", "-")
    assert done.returncode == 0
    assert "--offline" in done.stderr
    assert parse_training_config(done.stdout).experiment.name == "en-de"
    assert catalogue.requests == []


def test_a_pair_without_public_test_sets_gets_a_place_for_ones_own(
    web: WebServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["en", "br", "--offline", "--output", "-"]) == 0
    text = capsys.readouterr().out
    assert "No public test set is known for this pair" in text
    assert parse_training_config(text).datasets.devtest == ["file_data/devtest.[LANG].zst"]


def test_a_file_is_not_overwritten_unless_asked_to(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text("mine")
    done = limbeck("config", "new", "en", "de", "--offline", "--output", path)
    assert done.returncode == 2
    assert "exists" in done.stderr and "--force" in done.stderr
    assert path.read_text() == "mine"
    assert limbeck("config", "new", "en", "de", "--offline", "--output", path, "--force").returncode == 0
    assert path.read_text() != "mine"


def test_a_name_that_is_none_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yml"
    assert main(["en", "de", "--offline", "--name", "a: b", "--output", str(path)]) == 2
    assert "experiment.name: found 'a: b'" in capsys.readouterr().err
    assert not path.exists()


@pytest.mark.parametrize(
    ("languages", "said"),
    [
        (("en", "dr"), "no language with the code 'dr' is known; did you mean d"),
        (("deu", "en"), "no language with the code 'deu' is known; did you mean de?"),
        (("en", "qqq"), "no language with the code 'qqq' is known"),
        (("en", "pt-BR"), "did you mean pt_BR?"),
        (("EN", "de"), "did you mean en?"),
        (("en", "german"), "'german' is no code of a language"),
        (("de", "de"), "two different languages"),
    ],
)
def test_languages_that_are_none(
    languages: tuple[str, str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yml"
    assert main([*languages, "--output", str(path)]) == 2
    assert said in capsys.readouterr().err
    assert not path.exists()


@pytest.mark.parametrize(
    ("pairs", "level", "back_translated", "alphas"),
    [
        (300_000_000, "high", 50_000_000, None),
        (30_000_000, "medium", 100_000_000, None),
        (500_000, "low", 200_000_000, [0.2, 0.2]),
    ],
)
def test_less_parallel_text_asks_for_other_settings(
    pairs: int, level: str, back_translated: int, alphas: list[float] | None
) -> None:
    choice = Choice(train=[Corpus("opus_Books/v1", pairs, None)], evaluation=evaluation_sets("en", "de"))
    text = config_text("en", "de", "x", choice)
    config = parse_training_config(text)
    check_values(config)
    assert f"{level} resources" in text
    assert config.experiment.mono_max_sentences_trg.total == back_translated
    assert config.marian_args.training_teacher.get("sentencepiece-alphas") == alphas


def test_scripts_that_share_no_pieces_get_a_vocabulary_each() -> None:
    choice = Choice(problems={"train": "nobody was asked"})
    assert parse_training_config(config_text("en", "zh_hant", "x", choice)).experiment.spm_vocab_split
    assert not parse_training_config(config_text("en", "de", "x", choice)).experiment.spm_vocab_split


def test_every_key_is_explained_by_its_definition() -> None:
    text = config_text("en", "de", "x", Choice(problems={"train": "nobody was asked"}))
    comments = " ".join(line.strip().lstrip("# ") for line in text.splitlines() if line.strip().startswith("#"))

    def keys(prefix: str, values: dict[str, Any]) -> list[str]:
        found = []
        for key, value in values.items():
            found.append(prefix + key)
            if isinstance(value, dict) and not prefix.startswith("marian-args"):
                found += keys(f"{prefix}{key}.", value)
        return found

    explained = [key for key in keys("", yaml.safe_load(text)) if not key.startswith("marian-args.")]
    assert len(explained) > 25
    for key in explained:
        assert description(key) in comments, key


def test_a_check_names_every_error_with_its_line(make_config: Any, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(
        "experiment:\n"
        "  name: x\n"
        "  src: en\n"
        "  trg: xx\n"
        "  cleaning:\n"
        "    datasets:\n"
        '      "file_/data/a.b.[LANG].zst": {max-wrds: 3}\n'
        "datasets:\n"
        "  train:\n"
        "    - gettext_one\n"
        "    - getext_two\n"
        "  devtest: [gettext_dev]\n"
        "marian-args:\n"
        "  training-teacher:\n"
        "    lern-rate: 1\n"
    )
    right = tmp_path / "right.yml"
    right.write_text(yaml.safe_dump(make_config.values(experiment={"teacher-decoder": "marian"})))
    done = limbeck("config", "check", right, wrong)
    assert done.returncode == 2
    assert f"{right}: ok: " in done.stdout
    assert f"{wrong}: 4 errors" in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith(f"{wrong}:") and "error: " in line]
    assert [re.sub(r": error: ([^ ]+):.*", r" \1", line.removeprefix(f"{wrong}:")) for line in lines] == [
        "4 experiment.trg",
        "7 experiment.cleaning.datasets.file_/data/a.b.[LANG].zst",
        "11 datasets.train.1",
        "14 marian-args.training-teacher",
    ]
    # A warning names its line, too, and is no error.
    line = right.read_text().splitlines().index("  teacher-decoder: marian") + 1
    assert f"{right}:{line}: warning: experiment.teacher-decoder" in done.stderr


def test_a_form_that_is_wrong_hides_no_wrong_values(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text(
        "experiment:\n"
        "  name: x\n"
        "  src: en\n"
        "  trg: xx\n"
        "  nam: y\n"
        "datasets:\n"
        "  train: [gettext_one, 3]\n"
        "  devtest: [opsu_x]\n"
        "marian-args:\n"
        "  training-teacher:\n"
        "    lern-rate: 1\n"
        "    after: {a: 1}\n"
    )
    found = {(error.line, error.message.partition(": ")[0]) for error in check_config(str(path)).errors}
    assert found == {
        (4, "experiment.trg"),
        (5, "experiment.nam"),
        (7, "datasets.train.1"),
        (8, "datasets.devtest.0"),
        (10, "marian-args.training-teacher"),
        (12, "marian-args.training-teacher.after"),
    }


@pytest.mark.parametrize("text", ["", "- a\n", "a: [\n", "datasets: 3\n", "experiment: {name: x}\n1: 2\n", "\x00"])
def test_what_is_no_config_at_all(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text(text)
    check = check_config(str(path))
    assert check.errors and check.tasks is None


def test_a_check_for_programs(make_config: Any, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("right.yml", "form.yml", "stage.yml", "none.yml")]
    paths[0].write_text(yaml.safe_dump(make_config.values()))
    paths[1].write_text("experiment:\n  nam: x\n")
    paths[2].write_text(yaml.safe_dump(make_config.values(target_stage="train-techer")))
    done = limbeck("config", "check", "--json", *paths)
    assert done.returncode == 2
    right, form, stage, none = json.loads(done.stdout)
    assert right["errors"] == [] and right["tasks"] > 10 and right["target_stage"] == "all-pipeline"
    assert [error["line"] for error in form["errors"] if "did you mean name?" in error["message"]] == [2]
    assert stage["errors"][0]["line"] == paths[2].read_text().splitlines().index("target-stage: train-techer") + 1
    assert none["errors"] == [{"line": None, "message": f"{paths[3]} does not exist"}]


def test_the_schema_stands_under_both_names() -> None:
    for flags in ((), ("--format", "table")):
        assert limbeck("config", "schema", *flags).stdout == limbeck("schema", *flags).stdout != ""


def test_the_table_goes_into_mappings_that_may_be_left_out() -> None:
    table = markdown_table()
    assert "<class" not in table
    assert "| `continuation.models.teacher` | mapping | `null` |" in table
    assert (
        "| `continuation.models.{backwards,teacher,student}.mode` | `use`, `continue`, `init` | required where" in table
    )


def test_an_unknown_command_of_config_is_answered_with_the_nearest() -> None:
    done = limbeck("config", "chekc")
    assert done.returncode == 2
    assert "did you mean check?" in done.stderr
