"""Models of rows, defined where annotations find them."""

from dataclasses import dataclass


@dataclass
class Parcel:
    id: int
    weight: float
