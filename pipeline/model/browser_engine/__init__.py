"""Bergamot, the engine of Firefox's translations, as its makers publish it for pages: run here in Node.

`engine_folder` and `engine_files` give what npm installs.
"""

from pipeline.model.browser_engine.install import engine_files, engine_folder, engine_version

__all__ = ["engine_files", "engine_folder", "engine_version"]
