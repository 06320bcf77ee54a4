"""The HTTP interface: health, metrics and figures."""
