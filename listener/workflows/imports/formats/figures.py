"""Numbers and times as more than one format writes them. Pure."""

import re

from listener.workflows.imports.formats.moments import BadMoment, written_moment
from listener.workflows.imports.found import OrderTrouble, Rules

MAX_NUMBER_CHARS = 50  # ShipStation's orderNumber


def order_number(text: object, name: str) -> str:
    """Check an order's number. Raises OrderTrouble."""
    number = " ".join(text.split()) if isinstance(text, str) else ""
    if not number:
        raise OrderTrouble(f"{name} is missing")
    if len(number) > MAX_NUMBER_CHARS:
        raise OrderTrouble(f"{name} has {len(number):,} characters; limit {MAX_NUMBER_CHARS}", number=number[:80])
    return number


def time_of(text: object, name: str, rules: Rules) -> str | None:
    """Read a time as ISO 8601 in UTC, None when there is none. Raises OrderTrouble."""
    if text is None:
        return None
    try:
        return written_moment(text, rules.zone)
    except (BadMoment, TypeError) as error:
        raise OrderTrouble(f"{name}: {error}") from None


def whole(text: object) -> object:
    """Return a whole number where the text is one; anything else as it is, for the order's check to refuse."""
    return int(text) if isinstance(text, str) and text.isascii() and text.isdecimal() and len(text) < 16 else text


def whole_decimal(text: str | None) -> object:
    """The same for formats whose quantities are decimals: `2.000` is 2, `2.5` is no quantity."""
    return whole(re.sub(r"\.0*$", "", text)) if text is not None else None
