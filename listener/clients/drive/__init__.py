"""Google Drive v3, as a service account sees it: the changes feed, a folder's listing, downloads."""
