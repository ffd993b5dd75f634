"""The documentation of the config is generated from its one definition."""

import json

from limbeck_taskgraph.catalogue import ROOT
from utils.schema import json_schema, markdown_table


def test_the_docs_hold_the_generated_table() -> None:
    page = (ROOT.parent / "docs" / "training-config.md").read_text(encoding="utf-8")
    assert markdown_table().strip() in page, "run limbeck schema --format table and put it into the page"


def test_the_json_schema_has_the_configs_keys() -> None:
    schema = json.loads(json_schema())
    assert {"experiment", "datasets", "marian-args", "target-stage"} <= schema["properties"].keys()
    assert schema["additionalProperties"] is False
