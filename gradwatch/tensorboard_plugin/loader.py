"""The entry point of the plugin: TensorBoard imports this file unguarded when it starts, so nothing here may fail.

What the plugin needs is imported when it is loaded, where TensorBoard survives what goes wrong.
"""

from __future__ import annotations

import logging
from typing import Any

from tensorboard.plugins import base_plugin

from gradwatch import tags

SAMPLES = 50_000
"""Events of each tag that TensorBoard keeps, in place of 10 or 100: more than there are steps under one tag."""

logger = logging.getLogger("gradwatch")


class Loader(base_plugin.TBLoader):  # type: ignore[misc]
    """Makes the Gradients tab."""

    def fix_flags(self, flags: Any) -> None:
        """Have TensorBoard keep every step; what the user asks for with --samples_per_plugin stands."""
        try:
            samples = dict(getattr(flags, "samples_per_plugin", None) or {})
            samples.setdefault(tags.PLUGIN, SAMPLES)
            flags.samples_per_plugin = samples
        except Exception as error:  # TensorBoard starts, and the tab shows a sample of the steps
            logger.warning("the Gradients tab shows only some steps: %s", error)

    def load(self, context: base_plugin.TBContext) -> base_plugin.TBPlugin | None:
        """The plugin, None where something that it needs is missing."""
        try:
            from gradwatch.tensorboard_plugin.plugin import GradientsPlugin

            return GradientsPlugin(context)
        except Exception as error:
            logger.warning("no Gradients tab: %s: %s", type(error).__name__, error)
            return None
