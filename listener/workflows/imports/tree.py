"""An element and what is below it, as dicts, lists and trimmed texts: what the adapters read orders from. Pure."""

from typing import Any

from listener.workflows.imports.found import FileTrouble, OrderTrouble, Rules

#: Name of an element → its texts and elements by name; of one without children, its trimmed text, None when empty.
Node = dict[str, Any]


def read_node(element: Any, rules: Rules, lists: frozenset[str], depth: int = 2) -> Node:
    """Read an element's children. lists: names of elements that hold the same element many times.

    depth: of the element's children, the root being 0. Raises FileTrouble over a limit, OrderTrouble for
    what is ambiguous.
    """
    if depth > rules.most_depth:
        raise FileTrouble(f"line {element.sourceline}: elements are nested deeper than {rules.most_depth} levels")
    node: Node = {}
    most_chars = rules.most_field_chars
    value: Any
    for child in element:  # a dozen microseconds of each order are here: no call that need not be
        tag = child.tag
        if tag.__class__ is not str:
            _refuse(child)
        if len(child):
            value = read_list(child, rules, lists, depth) if tag in lists else read_node(child, rules, lists, depth + 1)
        else:
            value = child.text
            if value is not None:
                if len(value) > most_chars:
                    raise FileTrouble(
                        f"line {child.sourceline}: {_local(tag)} has {len(value):,} characters; limit {most_chars:,}"
                    )
                value = value.strip() or None
            if value is None and tag in lists:
                value = []
        if tag in node and node[tag] != value:
            raise OrderTrouble(f"line {child.sourceline}: {_local(tag)} stands there twice, with different values")
        node[tag] = value
    return node


def read_list(element: Any, rules: Rules, lists: frozenset[str], depth: int = 2) -> list[Node]:
    """Read the children of an element that holds the same element many times."""
    return [
        read_node(child, rules, lists, depth + 2) if child.tag.__class__ is str else _refuse(child) for child in element
    ]


def _refuse(child: Any) -> Node:
    raise OrderTrouble(f"line {child.sourceline}: the entity {child.text} is not defined; write the character itself")


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
