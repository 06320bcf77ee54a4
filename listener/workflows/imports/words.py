"""A shop's own status words, and what they mean for an order here. Pure."""

from listener.workflows.order import STATUSES

SHIPPED = "shipped"
#: What a word may be mapped to.
MEANINGS = (*STATUSES, SHIPPED)

_BY_MEANING = {
    "awaiting_shipment": (
        "awaiting_shipment", "awaiting shipment", "awaiting fulfillment", "paid", "processing", "new", "open",
        "unshipped", "ready", "ready to ship",
    ),
    "awaiting_payment": (
        "awaiting_payment", "awaiting payment", "unpaid", "pending", "pending payment", "pending_payment",
    ),
    "pending_fulfillment": ("pending_fulfillment", "pending fulfillment"),
    "on_hold": ("on_hold", "on-hold", "on hold", "hold", "holded"),
    "cancelled": ("cancelled", "canceled", "refunded", "voided", "void", "failed", "declined", "closed"),
    SHIPPED: ("shipped", "delivered", "fulfilled", "complete", "completed"),
}  # fmt: skip
#: Word in lower case → meaning.
DEFAULT_WORDS = {word: meaning for meaning, words in _BY_MEANING.items() for word in words}


def parse_words(text: str) -> dict[str, dict[str, str]]:
    """Read `[source:]word=meaning, …; …` as order source ("" = every source) → word → meaning.

    Raises ValueError with what is wrong.
    """
    found: dict[str, dict[str, str]] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        head, colon, pairs = part.partition(":")
        source, pairs = (head.strip(), pairs) if colon else ("", part)
        for pair in filter(None, (pair.strip() for pair in pairs.split(","))):
            word, equals, meaning = (piece.strip() for piece in pair.rpartition("="))
            if not equals or not word or meaning not in MEANINGS:
                raise ValueError(f"{pair!r}: expected word=meaning, the meaning one of {', '.join(MEANINGS)}")
            found.setdefault(source, {})[word.lower()] = meaning
    return found


def words_of(order_source: str, given: dict[str, dict[str, str]]) -> dict[str, str]:
    """Return the words that count for a source: the defaults, what is set for all, and what is set for it."""
    return {**DEFAULT_WORDS, **given.get("", {}), **given.get(order_source, {})}
