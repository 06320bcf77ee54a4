"""Order files damaged at random: none crashes or hangs the reader, and none is accepted wrongly.

What is right is said by another parser, expat, which shares no code with ours. `--mutations` says how many.
"""

import io
import json
import re
from datetime import UTC
from typing import Any
from xml.etree import ElementTree as ET
from xml.parsers.expat import errors

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from workflows.imports import shop
from workflows.imports.test_formats import CXML, UBL, WHOLE

from listener.workflows.imports.found import FileTrouble, Rules
from listener.workflows.imports.reader import Reader
from listener.workflows.order import parse_order

RULES = Rules(zone=UTC)
BASES = [
    WHOLE.encode(),
    shop.numbered(2).encode(),
    shop.numbered(2).replace("Austin", "Köln").replace("utf-8", "utf-16").encode("utf-16"),
    shop.numbered(1).replace("Austin", "Köln").replace("utf-8", "iso-8859-1").encode("latin-1"),
    CXML.format(kind="new").encode(),
    UBL.encode(),
]
ORDERS = {"Orders": "Order", "cXML": "Request/OrderRequest"}
PIECES = st.one_of(
    st.binary(max_size=6),
    st.sampled_from(
        [b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xc2\x85", b"\xed\xa0\x80", b'<!DOCTYPE Orders [<!ENTITY x "y">]>']
    ),
    st.sampled_from(
        b"< > & ]]> <!-- --> <![CDATA[ <? ?> &lt; &#0; &#xD800; &x; 99999999999999999999 -1 e308 <a:b/>".split()
    ),
    st.sampled_from(b"</Order> <Order> <Orders> </Orders> <Item/> <Items> xmlns='urn:x'".split()),
)
ENTITY = re.compile(rb"&(?!amp;|lt;|gt;|apos;|quot;)[A-Za-z_:][\w:.-]*;")
# NameChar of the fifth edition (2008), section 2.3, beyond ASCII.
NAMES = re.compile(
    "[\u00b7\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u037d\u037f-\u1fff\u200c\u200d\u203f\u2040\u2070-\u218f\u2c00-\u2fef"
    "\u3001-\ud7ff\uf900-\ufdcf\ufdf0-\ufffd\U00010000-\U000effff]"
)
SPOTS = st.floats(0, 1, exclude_max=True)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """One of the files with one to four pieces put in, cut out, doubled or moved."""
    data = bytearray(draw(st.sampled_from(BASES)))
    for _ in range(draw(st.integers(1, 4))):
        start = int(draw(SPOTS) * len(data))
        end = min(start + draw(st.integers(0, 40)), len(data))
        match draw(st.integers(0, 4)):
            case 0:
                del data[start:end]
            case 1:
                data[start:end] = draw(PIECES)
            case 2:
                data[start:start] = draw(PIECES)
            case 3:
                data[start:start] = data[start:end]
            case _:
                del data[start:]
    return bytes(data)


def counted_by_expat(data: bytes) -> int | None:
    """How many orders the other parser sees; None when it takes nothing, or cannot tell.

    Where expat is stricter than what we promise it is asked again without the stumbling block: an entity that nobody
    defined is the fault of its order, which is rejected, and expat knows only the names of XML 1.0's fourth edition.
    """
    try:
        root = ET.fromstring(data.lstrip(b" \t\r\n"))
    except ET.ParseError as error:
        without = data
        if error.code == errors.codes[errors.XML_ERROR_UNDEFINED_ENTITY]:
            without = ENTITY.sub(b"", data)
        elif error.code == errors.codes[errors.XML_ERROR_INVALID_TOKEN]:
            without = NAMES.sub("x", data.decode(errors="surrogateescape")).encode(errors="surrogateescape")
        return counted_by_expat(without) if without != data else None
    except (ValueError, LookupError):
        return None
    return len(root.findall(ORDERS[root.tag])) if root.tag in ORDERS else 1


def check_one(data: bytes) -> str:
    """Read a file; "accepted" or "refused"."""
    reader: Any = Reader(io.BytesIO(data), RULES)
    try:
        batches = list(reader.batches())
    except FileTrouble:
        return "refused"
    rows = sum(batch.count for batch in batches)
    assert rows == sum(batch.rows.count(b"\n") for batch in batches)
    assert rows + sum(batch.beside.found for batch in batches) == reader.position == counted_by_expat(data)
    for batch in batches:
        for line in batch.rows.splitlines():
            payload = line.split(b"\t")[3].replace(b"\\\\", b"\\")
            parse_order(json.loads(payload))
    return "accepted"


def test_damaged_files_are_refused_or_read_rightly(request: pytest.FixtureRequest) -> None:
    outcomes = {"accepted": 0, "refused": 0}
    count = request.config.getoption("--mutations")

    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(damaged())
    def read_many(data: bytes) -> None:
        outcomes[check_one(data)] += 1

    read_many()
    # a test that refuses everything, or takes everything, shows nothing
    assert min(outcomes.values()) > count // 20, outcomes


def test_an_entity_that_nobody_defined_costs_its_order_alone() -> None:
    data = BASES[4].replace(b"A Buyer", b"A Bu&A;yer")
    assert data != BASES[4]
    assert check_one(data) == "accepted"
    assert [batch.beside.rejected for batch in Reader(io.BytesIO(data), RULES).batches()] == [1]


@pytest.mark.parametrize("number", range(len(BASES)))
def test_the_undamaged_files_are_accepted(number: int) -> None:
    assert check_one(BASES[number]) == "accepted"
