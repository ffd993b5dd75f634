import gzip
from pathlib import Path

import pytest
from dataset_step import DatasetStep
from web_server import WebServer

from pipeline.common.errors import UserError

MEMORY = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header srclang="en" segtype="sentence"/><body>
<tu><tuv xml:lang="en-US"><seg>Click <bpt i="1"/>here<ept i="1"/> &amp;
 wait</seg></tuv><tuv xml:lang="de-DE"><seg>Hier klicken</seg></tuv></tu>
<tu><tuv xml:lang="EN"><prop type="x">p</prop><seg>British</seg></tuv><tuv lang="de"><seg>Britisch</seg></tuv></tu>
<tu><tuv xml:lang="en"><seg>no German</seg></tuv><tuv xml:lang="fr"><seg>non</seg></tuv></tu>
<tu><tuv xml:lang="en"><seg>empty</seg></tuv><tuv xml:lang="de"><seg> </seg></tuv></tu>
</body></tmx>
"""


def test_a_memory(step: DatasetStep, web: WebServer) -> None:
    name = f"tmx_{web.put('/memory.tmx.gz', gzip.compress(MEMORY.encode()))}"
    assert step.parallel(name) == [("Click here & wait", "Hier klicken"), ("British", "Britisch")]
    assert step.stats["dropped"] == {"untranslated": 2}
    assert step.parallel(name, languages=("fr", "en")) == [("non", "no German")]


def test_a_memory_of_this_machine_in_utf16(step: DatasetStep, tmp_path: Path) -> None:
    (tmp_path / "memory.tmx").write_bytes(MEMORY.replace("UTF-8", "UTF-16").encode("utf-16"))
    assert len(step.parallel(f"tmx_{tmp_path}/memory.tmx")) == 2


def test_bad_memories(step: DatasetStep, web: WebServer) -> None:
    name = f"tmx_{web.put('/memory.tmx', MEMORY.encode())}"
    with pytest.raises(UserError, match="no unit in both en and es: its languages are EN, de, de-DE, en, en-US, fr"):
        step.parallel(name, languages=("en", "es"))
    with pytest.raises(UserError, match="is parallel"):
        step.mono(name)
    web.put("/memory.tmx", MEMORY.encode()[:-40])
    with pytest.raises(UserError, match=r"memory\.tmx is not a sound TMX file"):
        step.parallel(name)
    web.put("/memory.tmx", gzip.compress(MEMORY.encode())[:-20])
    with pytest.raises(UserError, match=r"memory\.tmx is not a sound TMX file"):
        step.parallel(name)
    with pytest.raises(UserError, match="404"):
        step.parallel(f"tmx_{web.url}/other.tmx")
