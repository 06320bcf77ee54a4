"""Local servers that behave like the outside APIs, for the demo and the tests.

One package per API, `together` serves them all; what they share lies here: `exchange` (one call from its body to its
last byte), `clock` (the vendor's clock), `limits` (calls per window), `faults` (what goes wrong, on demand), `traffic`
(what was called, and when) and `wire` (what ASGI cannot express: a reset).
Nothing here talks to a database or to the network by itself; whoever starts an ASGI server around it does.
"""
