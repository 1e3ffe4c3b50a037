"""Drawn data of a few samples, for tests that run the real loading code."""

from __future__ import annotations

from hw6core.data.synthetic import Sizes

TINY = Sizes(
    segmentation_train=8,
    segmentation_validation=4,
    segmentation_test=4,
    colorization_train=10,
    colorization_validation=4,
    garments_train=100,
    garments_test=40,
)
