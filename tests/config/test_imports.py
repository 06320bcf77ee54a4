"""Settings of the outside sources: what belongs together, and what stays secret."""

from pathlib import Path

import pytest

from listener.config.environment import load_environment
from listener.core.errors import ConfigError

URL = "https://shop.example/?wc-api=export&auth_key=hunter2"


def refusal(**environ: str) -> str:
    with pytest.raises(ConfigError) as refused:
        load_environment({"DATABASE_URL": "postgresql://h/d", **environ}, None)
    assert "hunter2" not in str(refused.value)
    return str(refused.value)


def test_an_export_address_may_have_a_query_and_is_a_secret() -> None:
    env = load_environment({"DATABASE_URL": "postgresql://h/d", "IMPORT_SHOP_URL": URL}, None)
    assert env.import_shop_url is not None
    assert env.import_shop_url.get_secret_value() == URL
    assert "hunter2" not in repr(env)


@pytest.mark.parametrize(
    "url",
    ["shop.example/hunter2", "ftp://shop.example/hunter2", "https://me:hunter2@shop.example", f"{URL}#x", f"{URL} "],
)
def test_bad_addresses_are_not_repeated(url: str) -> None:
    if url.endswith(" "):
        url = url.replace("export", "ex port")
    assert "IMPORT_SHOP_URL: its value is not right: expected http://host/path" in refusal(IMPORT_SHOP_URL=url)


def test_what_belongs_together_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "key.json").touch()
    key = str(tmp_path / "key.json")
    assert "DRIVE_SERVICE_ACCOUNT_FILE is not set; DRIVE_FOLDER_ID and" in refusal(DRIVE_FOLDER_ID="orders")
    assert "DRIVE_FOLDER_ID is not set" in refusal(DRIVE_SERVICE_ACCOUNT_FILE=key)
    assert "IMPORT_SHOP_PASSWORD is not set" in refusal(IMPORT_SHOP_URL=URL, IMPORT_SHOP_USER="me")
    assert "IMPORT_SHOP_USER is not set" in refusal(IMPORT_SHOP_URL=URL, IMPORT_SHOP_PASSWORD="hunter2")
    assert "IMPORT_SHOP_URL is not set" in refusal(IMPORT_SHOP_USER="me", IMPORT_SHOP_PASSWORD="hunter2")


def test_names_and_values_that_are_none(tmp_path: Path) -> None:
    assert "DRIVE_FOLDER is not a setting; did you mean DRIVE_FOLDER_ID?" in refusal(DRIVE_FOLDER="orders")
    assert "expected a file that exists" in refusal(
        DRIVE_FOLDER_ID="orders", DRIVE_SERVICE_ACCOUNT_FILE=str(tmp_path / "none.json")
    )
    assert "expected the folder's id" in refusal(DRIVE_FOLDER_ID="https://drive.google.com/x")
    assert "IMPORT_SHOP_OVERLAP: '5'" in refusal(IMPORT_SHOP_OVERLAP="5")
