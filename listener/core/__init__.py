"""Decisions and vocabulary: standard library only, no await, no clock, no I/O.

Everything here is a value or a pure function; time and randomness come in as arguments.
"""
