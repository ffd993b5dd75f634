"""What every mapping of the training config is."""

from pydantic import BaseModel, ConfigDict


def _kebab_case(name: str) -> str:
    return name.replace("_", "-")


class Section(BaseModel):
    """A mapping of the config: kebab-case keys, no unknown ones, the same rules for every level."""

    model_config = ConfigDict(extra="forbid", alias_generator=_kebab_case, populate_by_name=False, strict=False)
