"""Queue `import`: files of orders become rows of `orders_inbox`.

`handler` does the I/O, along `pipeline`; `reader` takes a file apart, one order at a time, with an adapter of
`formats/`; `check` tells whether an order will do, `words` what a shop's status means. `folder_source` finds files.
"""
