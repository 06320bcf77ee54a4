"""The queues of the service, apart from their handlers: who only reads them needs no HTTP client."""

from listener.core.queue import Queue

UPLOAD = Queue(
    name="upload",
    table="orders_inbox",
    done_word="Uploaded",
    noun="orders",
    label="order_number",
    columns=("source", "order_number", "order_key", "payload"),
    results=("shipstation_order_id", "order_key", "uploaded_at"),
)
IMPORT = Queue(
    name="import",
    table="import_files",
    done_word="Imported",
    noun="files",
    label="name",
    columns=("source", "order_source", "uri", "name", "version", "sha256", "merged_at"),
    results=(
        "sha256",
        "size_bytes",
        *(f"orders_{word}" for word in ("found", "inserted", "updated", "unchanged", "ignored", "rejected")),
        "report",
    ),
)
SYNC = Queue(
    name="sync",
    table="sync_runs",
    done_word="Succeeded",
    noun="sync runs",
    label="reason",
    columns=("connector", "account", "reason", "params", "stats"),
    results=("stats",),
    concurrency_key=("connector", "account"),
)
QUEUES: dict[str, Queue] = {queue.name: queue for queue in (UPLOAD, IMPORT, SYNC)}
