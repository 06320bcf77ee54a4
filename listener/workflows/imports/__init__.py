"""Queue `import`: files of orders become rows of `orders_inbox`.

`handler` does the I/O; `reader` takes a file apart, one order at a time, with an adapter for its format
(`custom_store`, …); `check` tells whether an order will do, `moments` and `words` read its times and its status.
"""
