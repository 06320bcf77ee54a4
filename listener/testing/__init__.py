"""Tests of a program that uses the library."""
