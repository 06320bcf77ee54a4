"""Connectors: clients of outside APIs. The only package that speaks HTTP outwards."""
