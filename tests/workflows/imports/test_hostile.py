"""Files that mean harm, or are broken: refused in words, or imported rightly; in seconds, and in little memory."""

import gzip
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Database
from workflows.imports import shop
from workflows.imports.desk import desk
from workflows.imports.test_formats import read

from listener.workflows.imports.found import FileTrouble

MOST_MEMORY_BYTES, MOST_SECONDS = 200_000_000, 5

GOOD = shop.numbered(2)
DTD = '<?xml version="1.0"?><!DOCTYPE Orders [{}]><Orders>{}</Orders>'


def lol() -> str:
    entities = '<!ENTITY a0 "lol">' + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    return DTD.format(entities, shop.order(notes="x").replace("<![CDATA[x]]>", "&a11;"))


def quadratic() -> str:
    return DTD.format(f'<!ENTITY a "{"a" * 100_000}">', shop.order(notes="x").replace("<![CDATA[x]]>", "&a;" * 10_000))


def attribute_bomb() -> str:
    """In an attribute, entities are expanded whatever a parser is told."""
    entities = '<!ENTITY a0 "lol">' + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    return f'<?xml version="1.0"?><!DOCTYPE Orders [{entities}]><Orders x="&a11;"></Orders>'


def deep(depth: int) -> str:
    return shop.document([shop.order().replace("<Gift>", f"{'<a>' * depth}{'</a>' * depth}<Gift>")])


#: Name → content and the words of the refusal.
REFUSED: dict[str, tuple[Callable[[], str | bytes], str]] = {
    "billion laughs": (lol, "declares entities|amplification"),
    "quadratic blow-up": (quadratic, "declares entities|amplification"),
    "entities in an attribute": (attribute_bomb, "entit|loop|amplification|not well-formed"),
    "external entity, file": (
        lambda: DTD.format(
            '<!ENTITY x SYSTEM "file:///etc/passwd">', shop.order(notes="x").replace("<![CDATA[x]]>", "&x;")
        ),
        "declares entities",
    ),
    "parameter entity": (
        lambda: DTD.format('<!ENTITY % x SYSTEM "file:///etc/passwd"> %x;', ""),
        "entit|internal subset",
    ),
    "10,000 levels": (lambda: deep(10_000), "Excessive depth"),
    "40 levels in an order": (lambda: deep(40), "nested deeper than 32 levels"),
    "text of 50 MB": (lambda: shop.document([shop.order(notes="x" * 50_000_000)]), "huge|no order ends within"),
    "text of 150,000": (lambda: shop.document([shop.order(notes="x" * 150_000)]), "150,000 characters; limit 100,000"),
    "20 MB without an order": (lambda: shop.document(["<a/>" * 5_000_000]), "no order ends within 2,000,000 bytes"),
    "an order that never ends": (
        lambda: shop.document([shop.order().replace("<Gift>", "<x>y</x>" * 400_000 + "<Gift>")]),
        "no order ends within",
    ),
    "gzip bomb renamed": (lambda: gzip.compress(b" " * 50_000_000), "packed .gzip."),
    "NUL": (lambda: GOOD.replace("Austin", "Aus\0tin"), "not well-formed"),
    "control character": (lambda: GOOD.replace("Austin", "Aus\x01tin"), "not well-formed"),
    "declared utf-8, is cp1252": (lambda: GOOD.replace("Austin", "Köln").encode("cp1252"), "not well-formed"),
    "declared utf-16, is utf-8": (lambda: GOOD.replace("utf-8", "utf-16").encode(), "."),
    "unknown encoding": (lambda: GOOD.replace("utf-8", "klingon").encode(), "encoding"),
    "cut off": (lambda: GOOD[:-100], "not well-formed"),
    "cut off in the head": (lambda: "<?xml vers", "."),
    "two documents joined": (lambda: GOOD + GOOD, "not well-formed"),
    "bytes behind the root": (lambda: GOOD + "garbage", "not well-formed"),
    "an ampersand": (lambda: GOOD.replace("<![CDATA[Austin]]>", "A & B"), "not well-formed"),
    "an HTML entity": (lambda: GOOD.replace("<![CDATA[Austin]]>", "A&nbsp;B"), "not well-formed"),
    "empty": (lambda: b"", "empty"),
    "blank": (lambda: b" \n ", "."),
    "JSON": (lambda: '{"orders": []}', "not well-formed"),
    "PDF": (lambda: b"%PDF-1.7\x00\xff\xfe" + bytes(range(256)) * 100, "not well-formed"),
    "XInclude of a file": (
        lambda: shop.document(
            ['<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="file:///etc/passwd" parse="text"/>']
        ).replace("<Orders", "<Order"),
        ".",
    ),
}

#: Unusual, but right: name → bytes. Each holds the city Köln.
RIGHT: dict[str, bytes] = {
    "utf-8": shop.document([shop.order()]).replace("Austin", "Köln").encode(),
    "utf-8 with a mark": b"\xef\xbb\xbf" + shop.document([shop.order()]).replace("Austin", "Köln").encode(),
    "utf-16": shop.document([shop.order()]).replace("Austin", "Köln").replace("utf-8", "utf-16").encode("utf-16"),
    "utf-16, mark against the declaration": shop.document([shop.order()])
    .replace("Austin", "Köln")
    .replace(' encoding="utf-8"', "")
    .encode("utf-16"),
    "latin-1": shop.document([shop.order()]).replace("Austin", "Köln").replace("utf-8", "iso-8859-1").encode("latin-1"),
    "cp1252": shop.document([shop.order()]).replace("Austin", "Köln").replace("utf-8", "windows-1252").encode("cp1252"),
    "utf-8 mark, declared latin-1": b"\xef\xbb\xbf"
    + shop.document([shop.order()]).replace("Austin", "Köln").replace("utf-8", "iso-8859-1").encode(),
    "blanks in front": b"\r\n  " + shop.document([shop.order()]).replace("Austin", "Köln").encode(),
    "comments and instructions": shop.document([shop.order()])
    .replace("Austin", "Köln")
    .replace("<Items>", "<!-- c --><?pi x?><Items><!-- d -->")
    .encode(),
    "a character by its number": shop.document([shop.order()]).replace("<![CDATA[Austin]]>", "K&#246;ln").encode(),
    "a document type that is nowhere": shop.document([shop.order()])
    .replace("Austin", "Köln")
    .replace("<Orders", '<!DOCTYPE Orders SYSTEM "http://127.0.0.1:1/orders.dtd">\n<Orders')
    .encode(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_words(name: str) -> None:
    make, words = REFUSED[name]
    with pytest.raises(FileTrouble, match=words):
        read(make())


@pytest.mark.parametrize("name", RIGHT)
def test_imported_rightly(name: str) -> None:
    found, rejects = read(RIGHT[name])
    assert ([order["ship_to"]["city"] for order in found.values()], rejects) == (["Köln"], [])


def test_a_text_is_read_as_text_whatever_it_declares() -> None:
    """A row's content was decoded when it was inserted."""
    content = shop.document([shop.order()]).replace("Austin", "Köln").replace("utf-8", "iso-8859-1")
    [order] = read(content, encoding="utf-8")[0].values()
    assert order["ship_to"]["city"] == "Köln"


def test_an_entity_of_a_document_type_that_is_not_loaded_rejects_its_order() -> None:
    """It would be lost without a word otherwise."""
    content = (
        shop.document([shop.order("N-1"), shop.order("N-2").replace("<![CDATA[Austin]]>", "S&atilde;o Paulo")])
        .replace("<Orders", '<!DOCTYPE Orders SYSTEM "http://127.0.0.1:1/orders.dtd">\n<Orders')
        .encode()
    )
    found, rejects = read(content)
    assert (list(found), len(rejects)) == (["N-1"], 1)
    assert "&atilde; is not defined" in rejects[0]["reason"]


def test_nothing_is_fetched() -> None:
    """Neither the document type, nor an entity, nor a schema."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        dtd = f'<!DOCTYPE Orders PUBLIC "-//X//Y" "{address}/orders.dtd">\n<Orders'
        read(shop.document([shop.order()]).replace("<Orders", dtd))
        with pytest.raises(FileTrouble):
            read(DTD.format(f'<!ENTITY x SYSTEM "{address}/x">', "<Order>&x;</Order>"))
        with pytest.raises(TimeoutError):
            server.accept()


_ONE = """
import json, resource, sys, time
sys.path[:0] = {path!r}
from workflows.imports.test_hostile import REFUSED, read
from listener.workflows.imports.found import FileTrouble
content = REFUSED[{name!r}][0]()
content = content.encode() if isinstance(content, str) else content
before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
try:
    read(content)
except FileTrouble:
    pass
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([(after - before) * 1024, time.process_time() - started]))
"""


@pytest.mark.parametrize(
    "name",
    [
        "billion laughs",
        "entities in an attribute",
        "10,000 levels",
        "20 MB without an order",
        "an order that never ends",
    ],
)
def test_harm_costs_little_memory_and_time(name: str) -> None:
    """In a process of its own: 200 MB for all of it, and processor time, which others on the machine do not change."""
    script = _ONE.format(path=[str(Path(__file__).parents[2])], name=name)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    memory_bytes, seconds = json.loads(done.stdout)
    assert memory_bytes < MOST_MEMORY_BYTES - 60_000_000  # the service itself has about 60 MB
    assert seconds < MOST_SECONDS


@pytest.mark.anyio
async def test_the_next_file_is_imported_all_the_same(database: Database) -> None:
    async with desk(database) as d:
        ids = {name: d.insert(make()) for name in ("cut off", "billion laughs") for make, _ in [REFUSED[name]]}
        good = d.insert(GOOD)
        await d.work()
        assert {name: d.row(id_)["status"] for name, id_ in ids.items()} == dict.fromkeys(ids, "Failed")
        assert d.row(good)["counts"] == {"found": 2, "inserted": 2}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"most_bytes": 3_000}, "larger than 3,000 bytes"),
        ({"most_orders": 3}, "more than 3 orders"),
        ({"most_depth": 3}, "nested deeper than 3 levels"),
        ({"most_field_chars": 20}, "characters; limit 20"),
        ({"most_seconds": 0.0}, "not read within 0 s"),
        ({"most_order_bytes": 1_000}, "no order ends within 1,000 bytes"),
    ],
)
async def test_over_a_limit_the_file_fails_with_the_figure(
    database: Database, limits: dict[str, float], words: str
) -> None:
    async with desk(database, **limits) as d:
        row = await d.take(deep(3) if "most_depth" in limits else shop.numbered(4))
        assert (row["status"], words in row["last_error"]) == ("Failed", True), row["last_error"]
        assert d.orders() == {}
