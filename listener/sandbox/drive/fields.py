"""Google's field masks: `nextPageToken,files(id,name)`. Pure."""

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

Mask: TypeAlias = dict[str, "Mask"]

_TOKENS = re.compile(r"\s*([A-Za-z0-9*]+|[(),])")


def parse_mask(text: str) -> Mask:
    """Read a mask; a name without parentheses stands for all of it. Raises ValueError."""
    tokens = _TOKENS.findall(text)
    if "".join(tokens) != re.sub(r"\s", "", text):
        raise ValueError(f"Invalid field selection {text[:60]}")
    mask, rest = _read(tokens)
    if rest:
        raise ValueError(f"Invalid field selection {rest[0]}")
    return mask


def _read(tokens: list[str]) -> tuple[Mask, list[str]]:
    mask: Mask = {}
    while tokens and tokens[0] != ")":
        name, *tokens = tokens
        if not name[0].isalpha() and name != "*":
            raise ValueError(f"Invalid field selection {name}")
        inner: Mask = {}
        if tokens and tokens[0] == "(":
            inner, tokens = _read(tokens[1:])
            if not tokens:
                raise ValueError("Invalid field selection: a ) is missing")
            tokens = tokens[1:]
        mask[name] = inner
        if tokens and tokens[0] == ",":
            tokens = tokens[1:]
    return mask, tokens


def masked(value: Any, mask: Mask) -> Any:
    """Cut a value down to a mask; an empty one leaves it whole."""
    if not mask or "*" in mask:
        return value
    if isinstance(value, list):
        return [masked(member, mask) for member in value]
    if isinstance(value, Mapping):
        return {name: masked(value[name], inner) for name, inner in mask.items() if name in value}
    return value
