"""A local Google Drive v3: `build(settings)` gives the ASGI application.

`token` checks a service account's signed request; `routes` has listing, changes feed and download; `fields` cuts a
reply down to what was asked for; `state` holds the files. Under /sandbox/ files are put in and faults are switched. It
sends no push messages.
"""

from listener.sandbox.drive.routes import build
from listener.sandbox.drive.state import Cloud, DriveSettings

__all__ = ["Cloud", "DriveSettings", "build"]
