"""An adapter for each format (`custom_store`, `cxml`, `ubl`), and what they share. All pure."""
