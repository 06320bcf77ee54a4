"""The settings of imports: where order files come from, and how they are read. Part of `Environment`."""

from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings

from listener.config.values import BaseUrl, DriveId, ExportUrl, File, Folder, Zone, problem


class ImportEnvironment(BaseSettings):
    """What `Environment` says of imports."""

    import_folder: Folder | None = Field(
        default=None, alias="IMPORT_FOLDER", description="folder that order files are dropped into"
    )
    import_settle_s: float = Field(
        default=1.0,
        ge=0.05,
        le=600,
        allow_inf_nan=False,
        alias="IMPORT_SETTLE",
        description="seconds that a dropped file must have been left alone",
    )
    import_order_source: str = Field(
        default="xml",
        min_length=1,
        max_length=50,
        alias="IMPORT_ORDER_SOURCE",
        description="orders_inbox.source of imported orders whose file names none",
    )
    import_time_zone: Zone = Field(
        default="UTC", alias="IMPORT_TIME_ZONE", description="zone of times without an offset in order files"
    )
    import_status_words: str = Field(
        default="",
        alias="IMPORT_STATUS_WORDS",
        description="the shop's own words: [order source:]word=status, …; … a status of the payload, or shipped",
    )
    import_max_bytes: int = Field(default=2_000_000_000, ge=1_000, alias="IMPORT_MAX_BYTES", description="of one file")
    import_max_orders: int = Field(default=5_000_000, ge=1, alias="IMPORT_MAX_ORDERS", description="in one file")
    import_max_depth: int = Field(
        default=32, ge=8, le=200, alias="IMPORT_MAX_DEPTH", description="levels of nested elements"
    )
    import_max_field: int = Field(
        default=100_000, ge=5_000, le=1_000_000, alias="IMPORT_MAX_FIELD", description="characters of one text"
    )
    import_max_seconds: float = Field(
        default=3_600.0,
        ge=1,
        allow_inf_nan=False,
        alias="IMPORT_MAX_SECONDS",
        description="seconds that one file may take",
    )

    import_shop_url: ExportUrl | None = Field(
        default=None,
        alias="IMPORT_SHOP_URL",
        description="export address of a shop that speaks ShipStation's custom store protocol, with its own parameters",
    )
    import_shop_user: str | None = Field(default=None, alias="IMPORT_SHOP_USER", description="Basic auth of that shop")
    import_shop_password: SecretStr | None = Field(
        default=None, alias="IMPORT_SHOP_PASSWORD", description="Basic auth of that shop"
    )
    import_shop_interval_s: float = Field(
        default=60.0, ge=1, le=86_400, alias="IMPORT_SHOP_INTERVAL", description="seconds between two looks at the shop"
    )
    import_shop_overlap_s: float = Field(
        default=900.0,
        ge=60,
        le=604_800,
        alias="IMPORT_SHOP_OVERLAP",
        description="seconds that each look goes back behind the one before",
    )
    import_shop_days: float = Field(
        default=30.0, ge=0, le=3_650, alias="IMPORT_SHOP_DAYS", description="days that the first look goes back"
    )
    import_shop_timeout_s: float = Field(
        default=120.0, ge=1, le=3_600, alias="IMPORT_SHOP_TIMEOUT", description="seconds that the shop may be silent"
    )
    drive_folder_id: DriveId | None = Field(
        default=None, alias="DRIVE_FOLDER_ID", description="folder of Google Drive, shared with the service account"
    )
    drive_service_account_file: File | None = Field(
        default=None, alias="DRIVE_SERVICE_ACCOUNT_FILE", description="the service account's key file (JSON)"
    )
    drive_interval_s: float = Field(
        default=30.0, ge=1, le=86_400, alias="DRIVE_INTERVAL", description="seconds between two looks at Drive"
    )
    drive_base_url: BaseUrl = Field(
        default="https://www.googleapis.com", alias="DRIVE_BASE_URL", description="address of the API"
    )
    drive_timeout_s: float = Field(
        default=60.0, ge=1, le=600, alias="DRIVE_TIMEOUT", description="seconds that Drive may be silent"
    )

    @model_validator(mode="after")
    def _sources_are_whole(self) -> Self:
        for first, second in (
            (("IMPORT_SHOP_USER", self.import_shop_user), ("IMPORT_SHOP_PASSWORD", self.import_shop_password)),
            (
                ("DRIVE_FOLDER_ID", self.drive_folder_id),
                ("DRIVE_SERVICE_ACCOUNT_FILE", self.drive_service_account_file),
            ),
        ):
            missing = [name for name, value in (first, second) if value is None]
            if len(missing) == 1:
                raise problem(f"{missing[0]} is not set; {first[0]} and {second[0]} belong together")
        if self.import_shop_user is not None and self.import_shop_url is None:
            raise problem("IMPORT_SHOP_URL is not set, but IMPORT_SHOP_USER is")
        return self
