"""Bergamot, the engine of Firefox's translations, as its makers publish it for pages: run here in Node.

`engine_folder` and `engine_files` give what npm installs, `BrowserEngine` translates with it, `ModelFiles` is what it
translates with.
"""

from pipeline.model.browser_engine.files import ModelFiles, is_browser_export
from pipeline.model.browser_engine.install import engine_files, engine_folder, engine_version
from pipeline.model.browser_engine.process import BrowserEngine

__all__ = ["BrowserEngine", "ModelFiles", "engine_files", "engine_folder", "engine_version", "is_browser_export"]
