"""Takes a file of orders apart, one order at a time: its memory does not grow with the file. Synchronous, for a thread.

The bytes go to the parser as they are. No DTD is loaded, no entity expanded, nothing fetched; the parser's own limits
(nesting 256, a text of 10 MB) stay on.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from lxml import etree
from pydantic_core import to_json

from listener.db.imports import Batch, Counts
from listener.workflows.imports.check import check
from listener.workflows.imports.formats import custom_store, cxml, ubl
from listener.workflows.imports.found import FileTrouble, Found, OrderTrouble, Rules

#: Orders of one COPY: about 2 MB; with more the merge is not faster (measured), and memory grows.
BATCH_ORDERS = 2_000
BATCH_BYTES = 4_000_000
#: Rejected orders that the report tells of one by one.
MOST_REJECTS = 1_000
_HEAD_BYTES = 65_536
_BLANKS = b" \t\r\n"
_PACKED = (
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "zip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
_SAFE: dict[str, Any] = {
    "resolve_entities": False,
    "no_network": True,
    "load_dtd": False,
    "dtd_validation": False,
    "huge_tree": False,
    "remove_comments": True,
    "remove_pis": True,
    "remove_blank_text": True,  # between elements; a tenth faster
    "collect_ids": False,
}

ReadOrder = Callable[[Any, Rules], Found]


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of file: its root element, which element at which level (0 is the root) is an order, and its reader."""

    name: str
    root: str
    order: str
    level: int
    read: ReadOrder


FORMATS = (
    Format(
        "ShipStation custom store",
        custom_store.ROOT,
        custom_store.ORDER,
        custom_store.LEVEL,
        custom_store.read_order,
    ),
    Format("cXML OrderRequest", cxml.ROOT, cxml.ORDER, cxml.LEVEL, cxml.read_order),
    Format("UBL 2 Order", ubl.ROOT, ubl.ORDER, ubl.LEVEL, ubl.read_order),
)


class Reader:
    """One file.

    encoding: of a text that never was a file, whatever it declares. check_cancelled: raises when nobody waits for us.

    rejects: the first orders that were refused, each with position (from 1), line, number and reason.
    """

    def __init__(
        self,
        file: BinaryIO,
        rules: Rules,
        *,
        encoding: str | None = None,
        check_cancelled: Callable[[], None] = lambda: None,
    ) -> None:
        self.rejects: list[dict[str, Any]] = []
        self.position = 0
        self._file = _Meter(file, rules, check_cancelled)
        self._rules = rules
        self._encoding = encoding

    @property
    def bytes_read(self) -> int:
        """How far it has come."""
        return self._file.bytes_read

    def batches(self) -> Iterator[Batch]:
        """Yield the orders. Raises FileTrouble: then nothing of the file counts, also not what was yielded."""
        try:
            form = self._recognise()
            yield from self._read(form)
        except etree.XMLSyntaxError as error:
            raise FileTrouble(f"not well-formed XML: {str(error.msg)[:300]}") from None
        except (LookupError, UnicodeError, ValueError) as error:
            if isinstance(error, FileTrouble):
                raise
            raise FileTrouble(f"cannot be read: {error}") from None

    def _recognise(self) -> Format:
        """Find the root element without building more than it, and go back to the start."""
        head = self._file.start()
        parser = etree.XMLPullParser(events=("start",), encoding=self._encoding, **_SAFE)
        while head:
            parser.feed(head)
            for _, root in parser.read_events():
                self._file.rewind()
                return self._format_of(root)
            head = self._file.read(_HEAD_BYTES)
        parser.close()  # says what is wrong
        raise FileTrouble("no element in it")

    def _format_of(self, root: Any) -> Format:
        dtd = root.getroottree().docinfo.internalDTD
        if dtd is not None and any(True for _ in dtd.iterentities()):
            raise FileTrouble(
                "its document type declares entities, which are not accepted; write the characters themselves"
            )
        for form in FORMATS:
            if root.tag == form.root:
                return form
        known = ", ".join(f"{form.root} ({form.name})" for form in FORMATS)
        raise FileTrouble(f"the root element is {root.tag:.100}, which is no format that is known; known: {known}")

    def _read(self, form: Format) -> Iterator[Batch]:
        events = etree.iterparse(self._file, events=("end",), tag=form.order, encoding=self._encoding, **_SAFE)
        rows: list[bytes] = []
        size, shipped, rejected = 0, 0, 0
        for _, element in events:
            parent = element.getparent()
            if _level(parent) != form.level:
                continue  # inside an order: its own reader says what it is
            self._file.order_ended()
            self.position += 1
            if self.position > self._rules.most_orders:
                raise FileTrouble(f"more than {self._rules.most_orders:,} orders")
            try:
                row = self._row(form.read(element, self._rules))
            except OrderTrouble as trouble:
                rejected += 1
                self._reject(element, trouble)
            else:
                if row is None:
                    shipped += 1
                else:
                    rows.append(row)
                    size += len(row)
            element.clear()
            if parent is not None:
                while element.getprevious() is not None:
                    del parent[0]
            if len(rows) >= BATCH_ORDERS or size >= BATCH_BYTES or shipped + rejected >= BATCH_ORDERS:
                yield _batch(rows, shipped, rejected)
                rows, size, shipped, rejected = [], 0, 0, 0
        yield _batch(rows, shipped, rejected)

    def _row(self, found: Found) -> bytes | None:
        """Write an order as a row of COPY text; None = it is no work."""
        if found.is_shipped:
            return None
        written = to_json(found.payload)
        try:
            check(found.payload, written)
        except OrderTrouble as trouble:
            raise OrderTrouble(str(trouble), number=found.number) from None
        number = found.number.encode().replace(b"\\", b"\\\\")
        version = b"\\N" if found.version is None else found.version.encode()
        return b"%d\t%s\t%s\t%s\n" % (self.position, number, version, written.replace(b"\\", b"\\\\"))

    def _reject(self, element: Any, trouble: OrderTrouble) -> None:
        if len(self.rejects) < MOST_REJECTS:
            self.rejects.append(
                {
                    "position": self.position,
                    "line": element.sourceline,
                    "order_number": trouble.number,
                    "reason": str(trouble)[:1_000],
                }
            )


def count_pages(file: BinaryIO) -> tuple[int, int]:
    """Read one page of a custom store export to its end: its orders, and of how many pages it says to be one.

    Raises FileTrouble when it is no such page, or not whole.
    """
    head = file.read(_HEAD_BYTES)
    file.seek(len(head) - len(head.lstrip(_BLANKS)))
    orders, pages = 0, 1
    try:
        for event, element in etree.iterparse(file, events=("start", "end"), **_SAFE):
            parent = element.getparent()
            if event == "start" and parent is None:
                if element.tag != custom_store.ROOT:
                    raise FileTrouble(f"the root element is {element.tag!r:.60}, not {custom_store.ROOT}")
                said = element.get("pages", "1").strip()
                pages = int(said) if said.isascii() and said.isdigit() and len(said) < 7 else 1
            elif event == "end" and parent is not None and parent.getparent() is None:
                orders += element.tag == custom_store.ORDER
                element.clear()
                while element.getprevious() is not None:
                    del parent[0]
    except etree.XMLSyntaxError as error:
        raise FileTrouble(f"not well-formed XML: {str(error.msg)[:300]}") from None
    except (LookupError, UnicodeError, ValueError) as error:
        raise error if isinstance(error, FileTrouble) else FileTrouble(f"cannot be read: {error}") from None
    return orders, pages


class _Meter:
    """The file, as the parser reads it: counts, and stops over a limit or when nobody waits any more."""

    def __init__(self, file: BinaryIO, rules: Rules, check_cancelled: Callable[[], None]) -> None:
        self._file = file
        self._rules = rules
        self._check_cancelled = check_cancelled
        self._begin = 0
        self.bytes_read = 0
        self._since_order = 0
        self._ends_at = time.monotonic() + rules.most_seconds

    def start(self) -> bytes:
        """Return the first bytes, without blanks in front, which XML does not allow and shops send."""
        head = self._file.read(_HEAD_BYTES)
        if not head:
            raise FileTrouble("the file is empty")
        for mark, name in _PACKED:
            if head.startswith(mark):
                raise FileTrouble(f"it is packed ({name}); unpack it")
        trimmed = head.lstrip(_BLANKS)
        self._begin = len(head) - len(trimmed)
        self.bytes_read = len(head)
        return trimmed

    def rewind(self) -> None:
        """Go back to where `start` began."""
        self._file.seek(self._begin)
        self.bytes_read = self._begin

    def order_ended(self) -> None:
        """What was read up to here is done with."""
        self._since_order = 0

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes. Raises FileTrouble over a limit."""
        self._check_cancelled()
        if time.monotonic() > self._ends_at:
            raise FileTrouble(f"not read within {self._rules.most_seconds:g} s")
        data = self._file.read(size if size > 0 else _HEAD_BYTES)
        self.bytes_read += len(data)
        self._since_order += len(data)
        if self.bytes_read > self._rules.most_bytes:
            raise FileTrouble(f"larger than {self._rules.most_bytes:,} bytes")
        if self._since_order > self._rules.most_order_bytes:
            raise FileTrouble(f"no order ends within {self._rules.most_order_bytes:,} bytes")
        return data


def _level(parent: Any) -> int:
    level = 0
    while parent is not None:
        level += 1
        parent = parent.getparent()
    return level


def _batch(rows: list[bytes], shipped: int, rejected: int) -> Batch:
    beside = Counts(found=shipped + rejected, ignored=shipped, rejected=rejected)
    return Batch(rows=b"".join(rows), count=len(rows), beside=beside)
