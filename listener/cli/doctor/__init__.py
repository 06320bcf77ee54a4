"""`listener doctor`: looks at a database, and everything around it that the service needs, and says what to do.

`examination.py` runs the checks, the other modules are the checks, by what they look at. Nothing is changed.
"""
