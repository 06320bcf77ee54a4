"""The measurements of `bench.engine`. Each is a module with a function that returns figures for one engine."""
