"""What all of Sahha's models share."""

from __future__ import annotations

from pydantic import ConfigDict
from pydantic.alias_generators import to_camel

from consumer.models.base import PlatformModel

__all__ = ["SahhaModel"]


class SahhaModel(PlatformModel):
    """A model of something Sahha sends: snake_case attributes, filled from camelCase JSON or by their own names.

    Frozen, tolerant and silent when printed, as every `PlatformModel`. `model_dump(by_alias=True)` gives Sahha's names.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)
