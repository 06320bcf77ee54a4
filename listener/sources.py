"""The sources of order files, wired into a process: a folder, a shop's export address, Google Drive."""

from contextlib import AsyncExitStack
from pathlib import Path

from listener.clients.drive.account import read_account
from listener.clients.drive.client import CONNECTOR as DRIVE
from listener.clients.drive.client import Drive
from listener.clients.folder import Folder
from listener.clients.shop import CONNECTOR as SHOP
from listener.clients.shop import ShopExport, account_name
from listener.config.environment import Environment
from listener.core.events import Settled
from listener.db.budgets import ApiBudget
from listener.db.sources import SourceState
from listener.process import Process
from listener.workflows.imports.drive_source import SOURCE as DRIVE_SOURCE
from listener.workflows.imports.drive_source import WORKFLOW as DRIVE_WORKFLOW
from listener.workflows.imports.drive_source import DriveSource
from listener.workflows.imports.folder_source import SOURCE as FOLDER
from listener.workflows.imports.folder_source import FolderSource
from listener.workflows.imports.handler import Opener
from listener.workflows.imports.shop_source import WORKFLOW as SHOP_WORKFLOW
from listener.workflows.imports.shop_source import ShopSource
from listener.workflows.imports.turns import Turns
from listener.workflows.queues import IMPORT


def source_accounts(env: Environment) -> set[tuple[str, str]]:
    """Return connector and account of each source that is an outside API."""
    accounts = set()
    if env.import_shop_url is not None:
        accounts.add((SHOP, account_name(env.import_shop_url.get_secret_value())))
    if env.drive_folder_id is not None:
        accounts.add((DRIVE, env.drive_folder_id))
    return accounts


async def open_sources(process: Process, stack: AsyncExitStack) -> dict[str, Opener]:
    """Have the process look for files; returns who opens those whose content is not in their row, by source.

    Raises ConfigError.
    """
    env = process.env
    openers: dict[str, Opener] = {}
    if env.import_folder is not None:
        openers[FOLDER] = _watch_folder(process, env.import_folder)
    if env.import_shop_url is not None:
        await _ask_shop(process, stack, env.import_shop_url.get_secret_value())
    if env.drive_folder_id is not None and env.drive_service_account_file is not None:
        openers[DRIVE_SOURCE] = await _follow_drive(process, stack, env.drive_folder_id, env.drive_service_account_file)
    return openers


def _watch_folder(process: Process, path: Path) -> FolderSource:
    folder = FolderSource(
        Folder(path),
        process.pool,
        process.bus.publish,
        settle_s=process.env.import_settle_s,
        poll_s=lambda: process.live.poll_interval_s(IMPORT.name),
        hears=lambda: process.live.notifications_enabled(IMPORT.name),
    )
    process.bus.subscribe(folder.on_event, Settled)
    process.chores.append(folder.run)
    return folder


async def _ask_shop(process: Process, stack: AsyncExitStack, url: str) -> None:
    env, publish = process.env, process.bus.publish
    password = env.import_shop_password
    shop = await stack.enter_async_context(
        ShopExport(
            url,
            user=env.import_shop_user,
            password=None if password is None else password.get_secret_value(),
            timeout_s=env.import_shop_timeout_s,
            budget=_unlimited(process, SHOP, account_name(url)),
            publish=publish,
        )
    )
    state = SourceState(process.pool, source="http", workflow=SHOP_WORKFLOW, account=account_name(url))
    source = ShopSource(
        shop,
        state,
        publish,
        overlap_s=env.import_shop_overlap_s,
        first_days=env.import_shop_days,
        most_bytes=env.import_max_bytes,
        most_s=env.import_max_seconds,
    )
    turns = Turns(
        source.look,
        state,
        process.configuration,
        publish,
        where=f"shop {shop.uri}",
        interval_s=env.import_shop_interval_s,
    )
    process.chores.append(turns.run)


async def _follow_drive(process: Process, stack: AsyncExitStack, folder: str, key_file: Path) -> DriveSource:
    env, publish = process.env, process.bus.publish
    drive = await stack.enter_async_context(
        Drive(
            env.drive_base_url,
            account=read_account(key_file),
            name=folder,
            timeout_s=env.drive_timeout_s,
            budget=_unlimited(process, DRIVE, folder),
            publish=publish,
        )
    )
    state = SourceState(process.pool, source=DRIVE_SOURCE, workflow=DRIVE_WORKFLOW, account=folder)
    source = DriveSource(drive, folder, state, publish, most_bytes=env.import_max_bytes, most_s=env.import_max_seconds)
    turns = Turns(
        source.look,
        state,
        process.configuration,
        publish,
        where=f"Google Drive {folder}",
        interval_s=env.drive_interval_s,
    )
    process.chores.append(turns.run)
    return source


def _unlimited(process: Process, connector: str, account: str) -> ApiBudget:
    """Make a budget that only knows pauses: these APIs' own limits are far above what one look asks for."""
    return ApiBudget(
        process.pool, process.bus.publish, connector=connector, account=account, call_limit=0, window_s=60.0
    )
