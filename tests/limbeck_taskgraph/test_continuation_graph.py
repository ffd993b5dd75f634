"""Continuation in the config and in the graph: who makes what, what is refused, and what counts for reuse."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck_taskgraph.catalogue import load_catalogue
from limbeck_taskgraph.config_file import ConfigError, parse_training_config
from limbeck_taskgraph.generate import generate_graph
from utils.check_config import check_values

HOST = "https://example.org"
VOCAB = {"src": f"{HOST}/vocab.ru.spm", "trg": f"{HOST}/vocab.en.spm"}
MONO = {"mono-src": ["file_/data/mono.[LANG].zst"], "mono-trg": ["file_/data/mono.[LANG].zst"]}


def corpus(name: str, aligned: bool = False) -> dict[str, str]:
    found = {"src": f"{HOST}/{name}.ru.zst", "trg": f"{HOST}/{name}.en.zst"}
    if aligned:
        tokens = {f"tok-{side}": f"{HOST}/{name}.tok-icu.{lang}.zst" for side, lang in (("src", "ru"), ("trg", "en"))}
        found |= {**tokens, "alignments": f"{HOST}/{name}.aln.zst"}
    return found


def model(name: str, mode: str = "use", **more: Any) -> dict[str, Any]:
    return {"url": f"{HOST}/{name}", "mode": mode, **more}


def text(continuation: dict[str, Any], train: bool = True, **sections: Any) -> str:
    datasets = {"devtest": ["gettext_dev"], "test": ["gettext_test"], **({"train": ["gettext_one"]} if train else {})}
    values = {
        "experiment": {"name": "test", "src": "ru", "trg": "en", **sections.pop("experiment", {})},
        "datasets": {**datasets, **sections.pop("datasets", {})},
        "continuation": continuation,
        "taskcluster": {"split-chunks": 2},
        **sections,
    }
    return yaml.safe_dump(values)


def graph(continuation: dict[str, Any], train: bool = True, **sections: Any) -> Any:
    config = parse_training_config(text(continuation, train, **sections))
    check_values(config)
    return generate_graph(config)


def labels(continuation: dict[str, Any], train: bool = True, **sections: Any) -> set[str]:
    return set(graph(continuation, train, **sections).tasks)


# Labels as users of the field's pipeline know them: those that each recipe must have, and those that it must not.
RECIPES: dict[str, tuple[dict[str, Any], str, str]] = {
    "teacher": (
        {
            "vocab": VOCAB,
            "models": {"backwards": model("backwards", type="default")},
            "corpora": {"parallel": corpus("parallel"), "backtranslations": corpus("backtranslations")},
        },
        """continuation-corpus-backtranslations continuation-corpus-parallel continuation-model-backwards
        continuation-vocab corpus-align-backtranslations corpus-align-distillation corpus-align-parallel
        corpus-merge-devset distillation-corpus-final-filtering distillation-student-model-train train-teacher-model""",
        """build-vocab continuation-corpus-distillation continuation-model-teacher corpus-merge-mono-src
        corpus-merge-mono-trg corpus-merge-parallel backtranslations-train-backwards-model""",
    ),
    "teacher with alignments": (
        {
            "vocab": VOCAB,
            "models": {"backwards": model("backwards", type="default")},
            "corpora": {"parallel": corpus("parallel", True), "backtranslations": corpus("backtranslations", True)},
        },
        """continuation-corpus-backtranslations continuation-corpus-parallel continuation-model-backwards
        continuation-vocab corpus-align-distillation corpus-merge-devset distillation-corpus-final-filtering
        distillation-student-model-train train-teacher-model""",
        """build-vocab continuation-corpus-distillation continuation-model-teacher corpus-align-backtranslations
        corpus-align-parallel corpus-merge-mono-src corpus-merge-mono-trg corpus-merge-parallel
        backtranslations-train-backwards-model""",
    ),
    "student": (
        {"vocab": VOCAB, "corpora": {"distillation": corpus("distillation")}},
        """continuation-corpus-distillation continuation-vocab corpus-align-distillation corpus-merge-devset
        distillation-student-model-train""",
        """build-vocab continuation-corpus-backtranslations continuation-corpus-parallel continuation-model-backwards
        continuation-model-teacher corpus-align-backtranslations corpus-align-parallel corpus-merge-mono-src
        corpus-merge-parallel distillation-corpus-final-filtering train-teacher-model""",
    ),
    "student with alignments": (
        {"vocab": VOCAB, "corpora": {"distillation": corpus("distillation", True)}},
        "continuation-corpus-distillation continuation-vocab corpus-merge-devset distillation-student-model-train",
        """build-vocab continuation-corpus-backtranslations continuation-corpus-parallel continuation-model-backwards
        continuation-model-teacher corpus-align-backtranslations corpus-align-distillation corpus-align-parallel
        corpus-merge-parallel distillation-corpus-final-filtering train-teacher-model""",
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_have_the_fields_labels(name: str) -> None:
    continuation, included, excluded = RECIPES[name]
    found = labels(continuation, train=False)
    kinds = {label.removesuffix("-1").rsplit("-ru", 1)[0].removesuffix("-en") for label in found}
    assert set(included.split()) <= kinds
    assert not set(excluded.split()) & kinds
    assert {"train-teacher-model-ru-en-1"} & found == ({"train-teacher-model-ru-en-1"} if "teacher" in name else set())


def test_every_input_of_every_mix_is_made_and_fetched() -> None:
    for continuation, _, _ in RECIPES.values():
        for task in graph(continuation, train=False):
            if task.task["payload"]:
                fetches = json.loads(task.task["payload"]["env"]["MOZ_FETCHES"]["task-reference"])
                assert {fetch["dest"] for fetch in fetches} == set(task.dependencies.values()), task.label


def test_each_teacher_gets_its_own_address() -> None:
    urls = [f"{HOST}/one", f"{HOST}/two"]
    found = graph({"models": {"teacher": {"urls": urls, "mode": "init"}}}, experiment={"teacher-ensemble": 2})
    for number, url in enumerate(urls, start=1):
        source = found.tasks[f"continuation-model-teacher-ru-en-{number}"]
        assert url in source.task["payload"]["command"][0][-1]
        teacher = found.tasks[f"train-teacher-model-ru-en-{number}"]
        assert source.label in teacher.dependencies.values()
        assert f"continuation-model-teacher-ru-en-{3 - number}" not in teacher.dependencies.values()


def test_external_teachers_bring_their_tokenizer_and_the_students_vocabulary_is_its_own() -> None:
    teacher = {"url": "Helsinki-NLP/opus-mt-ru-en", "mode": "use", "type": "huggingface", "source-prefix": ">>eng<<"}
    found = graph({"models": {"teacher": teacher}})
    source = found.tasks["continuation-model-teacher-ru-en"]
    assert "pipeline.continuation.external" in source.task["payload"]["command"][0][-1]
    translate = found.tasks["distillation-parallel-src-translate-ru-en-1/2"]
    command = translate.task["payload"]["command"][0][-1]
    assert "/continuation-model-teacher-ru-en/external" in command
    assert "--src-vocab" not in command
    assert "--source-prefix '>>eng<<'" in command
    assert "build-vocab-ru-en" in found.tasks["distillation-student-model-train-ru-en"].dependencies.values()
    assert "build-vocab-ru-en" not in translate.dependencies.values()


def test_data_sets_that_something_stands_for_are_not_imported(capsys: pytest.CaptureFixture[str]) -> None:
    continuation = {"corpora": {"parallel": corpus("parallel"), "backtranslations": corpus("backtranslations")}}
    config = parse_training_config(text(continuation, train=False, datasets=MONO))
    assert config.warnings() == ["datasets.mono-trg is not read: continuation.corpora.backtranslations stands for it."]
    found = set(generate_graph(config).tasks)
    assert {"corpus-merge-mono-src-ru", "distillation-mono-src-dechunk-translations-ru-en"} <= found
    assert not any("mono-trg" in label for label in found)


def test_back_translations_without_a_teacher_to_train_are_left_alone() -> None:
    continuation = {"models": {"teacher": model("t")}, "corpora": {"backtranslations": corpus("b")}}
    config = parse_training_config(text(continuation))
    assert config.warnings() == [
        "continuation.corpora.backtranslations is not read: only a teacher that is trained reads it."
    ]
    assert not any("backtranslations" in label for label in generate_graph(config).tasks)


def test_the_address_counts_for_reuse_and_a_local_file_by_its_content(tmp_path: Path) -> None:
    def digest(uri: str) -> str:
        vocab = {"src": uri, "trg": uri}
        found: str = graph({"vocab": vocab}).tasks["continuation-vocab-ru-en"].attributes["digest"]
        return found

    assert digest(f"{HOST}/a.spm") == digest(f"{HOST}/a.spm") != digest(f"{HOST}/b.spm")
    local = tmp_path / "vocab.spm"
    local.write_bytes(b"one")
    before = digest(str(local))
    local.touch()
    assert digest(str(local)) == before
    local.write_bytes(b"two")
    assert digest(str(local)) != before


def test_relative_paths_are_those_of_the_person_who_triggers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vocab.spm").write_bytes(b"one")
    monkeypatch.chdir(tmp_path)
    task = graph({"vocab": {"src": "vocab.spm", "trg": "vocab.spm"}}).tasks["continuation-vocab-ru-en"]
    assert f"--src-uri {tmp_path / 'vocab.spm'}" in task.task["payload"]["command"][0][-1]


def test_what_a_task_fetches_is_said_beforehand() -> None:
    found = graph(
        {"models": {"teacher": model("teacher", "continue"), "backwards": model("b")}, "vocab": VOCAB}, datasets=MONO
    )
    assert found.tasks["continuation-vocab-ru-en"].attributes["external"] == list(VOCAB.values())
    assert found.tasks["continuation-model-backwards-ru-en"].attributes["external"] == [
        f"{HOST}/b/final.model.npz.best-chrf.npz"
    ]
    assert found.tasks["continuation-model-teacher-ru-en"].attributes["external"] == [
        f"{HOST}/teacher/{name}" for name in ("model.npz", "optimizer.pt", "progress.yml")
    ]
    assert found.tasks["train-teacher-model-ru-en-1"].attributes["external"] == []


def test_every_key_of_the_catalogue_is_in_the_config() -> None:
    for artifact_type in load_catalogue().values():
        if artifact_type.config_key:
            section: Any = parse_training_config(text({})).to_parameters()
            for part in artifact_type.config_key.split("."):
                assert part in section, artifact_type.config_key
                section = section[part]


DISTILLATION = {"vocab": VOCAB, "corpora": {"distillation": corpus("d")}}
ALIGNED = {"src": "a", "trg": "b", "alignments": "c"}


@pytest.mark.parametrize(
    ("continuation", "sections", "said"),
    [
        ({"models": {"teacher": model("t", "reuse")}}, {}, "found 'reuse'; allowed: use, continue, init"),
        ({"models": {"teacher": {"url": "u"}}}, {}, r"continuation\.models\.teacher\.mode: missing"),
        ({"models": {"teacher": {"mode": "use"}}}, {}, "either url, or urls"),
        ({"models": {"teacher": model("t")}}, {"experiment": {"teacher-ensemble": 2}}, "found 1 address; needed: 2"),
        (
            {"models": {"teacher": {"urls": ["a", "a"], "mode": "use"}}},
            {"experiment": {"teacher-ensemble": 2}},
            "the same address stands twice",
        ),
        ({"models": {"backwards": {"urls": ["a", "b"], "mode": "use"}}}, {}, "there is one backwards model"),
        ({"corpora": {"parallel": ALIGNED}}, {"train": False}, r"tok-src, tok-trg missing.*without the tokens"),
        ({"corpora": {"parallel": corpus("p", True)}}, {}, "datasets.train is merged with this corpus"),
        (DISTILLATION, {}, r"continuation\.corpora\.distillation: .*datasets\.train: leave one"),
        ({"corpora": DISTILLATION["corpora"]}, {"train": False}, r"continuation\.vocab is needed with it"),
        ({}, {"train": False}, r"datasets\.train: there is nothing to train on"),
        ({}, {"datasets": {"devtest": []}}, r"datasets\.devtest: there is nothing to validate on"),
        ({"vocab": {"src": "a"}}, {}, r"continuation\.vocab\.trg: missing"),
        ({"vocabs": VOCAB}, {}, "did you mean vocab"),
        ({"models": {"teacher": model("t", "init", type="huggingface")}}, {}, "mode: use, for type huggingface"),
        ({"models": {"teacher": model("t", "continue", type="opusmt")}}, {}, "use or init, for type opusmt"),
        ({"models": {"student": model("s", type="ctranslate2")}}, {}, "a student is exported"),
        (
            {"models": {"teacher": model("t", type="huggingface")}},
            {"experiment": {"distillation": {"recipe": "word"}}},
            "has a vocabulary and a tokenizer of its own: use the recipe sequence",
        ),
        (
            {"models": {"teacher": model("t")}},
            {"experiment": {"distillation": {"recipe": "word"}}},
            r"both need one vocabulary: give continuation\.vocab",
        ),
        (
            DISTILLATION,
            {"train": False, "experiment": {"distillation": {"recipe": "interpolation"}}},
            "reads the original corpus too",
        ),
        ({"models": {"student": model("s")}}, {"train": False}, r"give continuation\.shortlist"),
        ({"models": {"teacher": model("t", revision="main")}}, {}, "revision only with type huggingface"),
        ({"vocab": {"src": " ", "trg": "b"}}, {}, r"continuation\.vocab\.src: found ' '"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(
    continuation: dict[str, Any], sections: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        graph(continuation, **sections)
    assert "config:" in str(error.value)


def test_a_curriculum_may_name_supplied_back_translations() -> None:
    stages = [{"mix": {"original": 3, "backtranslated": 2}, "until": "2e of backtranslated"}, {"mix": {"original": 1}}]
    experiment = {"curriculum": {"teacher": stages}}
    with pytest.raises(ConfigError, match="backtranslated"):
        graph({}, experiment=experiment)
    graph({"corpora": {"backtranslations": corpus("backtranslations")}}, experiment=experiment)


def test_the_layers_of_a_supplied_teacher_are_its_own() -> None:
    experiment = {"distillation": {"recipe": "word", "initialise": {"encoder-layers": [1, 7]}}}
    with pytest.raises(ConfigError, match=r"experiment\.distillation"):
        graph({}, experiment=experiment)
    sections = {"experiment": {**experiment, "student-model": "base"}}
    assert "continuation-model-teacher-ru-en" in labels({"vocab": VOCAB, "models": {"teacher": model("t")}}, **sections)
