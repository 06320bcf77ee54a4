"""The ward, for every module here."""

from cli.ward import patient

__all__ = ["patient"]
