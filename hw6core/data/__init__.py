"""Data sets: from a folder to tensors, independent of any model."""

from hw6core.data.endovis import load_colorization, load_endovis
from hw6core.data.fashion_mnist import load_fashion_mnist

__all__ = ["load_colorization", "load_endovis", "load_fashion_mnist"]
