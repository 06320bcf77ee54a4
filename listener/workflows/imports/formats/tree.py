"""An element and what is below it, as dicts, lists and trimmed texts: what the adapters read orders from. Pure."""

from typing import Any, NoReturn

from listener.workflows.imports.found import FileTrouble, OrderTrouble, Rules

#: Name of an element → its texts and elements by name; of one without children, its trimmed text, None when empty.
Node = dict[str, Any]


def split(element: Any, rules: Rules) -> tuple[dict[str, str], dict[str, Any]]:
    """Return an element's texts by name, trimmed and without empty ones, and its children that have children.

    Most of an import's own time is spent here, 1 µs a child: no call that need not be. Raises FileTrouble over a limit,
    OrderTrouble for what is ambiguous.
    """
    texts: dict[str, str] = {}
    inner: dict[str, Any] = {}
    most_chars = rules.most_field_chars
    for child in element:
        tag = child.tag
        if tag.__class__ is not str:
            _refuse(child)
        if len(child):
            if tag in inner:
                raise _twice(child)
            inner[tag] = child
            continue
        text = child.text
        if text is None:
            continue
        if len(text) > most_chars:
            raise _too_long(child, rules)
        text = text.strip()
        if text and texts.setdefault(tag, text) != text:
            raise _twice(child)
    return texts, inner


def read_node(element: Any, rules: Rules, depth: int) -> Node:
    """Read an element that we know nothing of, with all that is below. depth: of its children, the root being 0."""
    if depth > rules.most_depth:
        raise FileTrouble(f"line {element.sourceline}: elements are nested deeper than {rules.most_depth} levels")
    texts, inner = split(element, rules)
    return {**texts, **{tag: read_node(child, rules, depth + 1) for tag, child in inner.items()}}


def _refuse(child: Any) -> NoReturn:
    raise OrderTrouble(f"line {child.sourceline}: the entity {child.text} is not defined; write the character itself")


def _twice(child: Any) -> OrderTrouble:
    return OrderTrouble(f"line {child.sourceline}: {_local(child.tag)} stands there twice, with different values")


def _too_long(child: Any, rules: Rules) -> FileTrouble:
    words = f"{_local(child.tag)} has {len(child.text):,} characters; limit {rules.most_field_chars:,}"
    return FileTrouble(f"line {child.sourceline}: {words}")


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


class Elements:
    """An element of a format that repeats elements freely: looked into by path. Names: prefix:name as in `spaces`."""

    def __init__(self, element: Any, spaces: dict[str, str]) -> None:
        self.element = element
        self._spaces = spaces

    def text(self, *paths: str) -> str | None:
        """Return the first text that one of these paths leads to, trimmed; None when there is none."""
        for path in paths:
            found = self.element.find(path, self._spaces)
            if found is not None and found.text and found.text.strip():
                return str(found.text.strip())
        return None

    def texts(self, path: str) -> list[str]:
        """Return every text that the path leads to."""
        return [found.text.strip() for found in self.element.findall(path, self._spaces) if (found.text or "").strip()]

    def attribute(self, path: str, name: str) -> str | None:
        """Return an attribute of what the path leads to, "." being the element itself."""
        found = self.element if path == "." else self.element.find(path, self._spaces)
        value = None if found is None else found.get(name)
        return value.strip() or None if value else None

    def first(self, *paths: str) -> "Elements | None":
        """Return the first element that one of these paths leads to."""
        for path in paths:
            found = self.element.find(path, self._spaces)
            if found is not None:
                return Elements(found, self._spaces)
        return None

    def all(self, path: str) -> list["Elements"]:
        """Return every element that the path leads to."""
        return [Elements(found, self._spaces) for found in self.element.findall(path, self._spaces)]


def require_plain(element: Any, rules: Rules, depth: int) -> None:
    """Raise FileTrouble for what is over a limit in an element or below, OrderTrouble for an entity."""
    waiting = [(element, depth)]
    while waiting:
        parent, level = waiting.pop()
        if level > rules.most_depth:
            raise FileTrouble(f"line {parent.sourceline}: elements are nested deeper than {rules.most_depth} levels")
        for child in parent:
            if child.tag.__class__ is not str:
                _refuse(child)
            if child.text is not None and len(child.text) > rules.most_field_chars:
                raise _too_long(child, rules)
            waiting.append((child, level + 1))


def compact(**fields: Any) -> Node:
    """Return what is not None."""
    return {name: value for name, value in fields.items() if value is not None}
