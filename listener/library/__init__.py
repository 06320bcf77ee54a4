"""A program of the user's own: handlers for attached tables, on the engine that the service runs on.

`listener.py` holds the declarations and runs them, `declaration.py` checks each one, `assignments.py` finds its table,
`calls.py` calls the function, `rows.py` makes its typed rows, `threads.py` runs it when it is not async.
"""
