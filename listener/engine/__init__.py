"""The engine: wake → claim → execute → settle. Generic over queue tables: nothing here knows what an order is.

One way, no back and forth: `wake` says look, `dispatcher` claims what has a slot or will in a moment, `held` begins it
when a slot is free, `executor` runs the handler, `completer` writes many outcomes in one fenced UPDATE. `survey` asks,
with each safety poll, for all queues at once whether there is anything to do; `rescuer` frees the rows of the dead;
`supervisor` holds the session whose life all this is bound to.
"""
