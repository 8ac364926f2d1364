"""A made-up folder of `editloop up`, for back-ups: databases of a row each, secrets, and files of every kind."""

import sqlite3
from contextlib import closing
from pathlib import Path

TABLES = {
    "label-studio/label_studio.sqlite3": ("io_storages_localfilesmixin (path)",),
    "mlflow/mlflow.db": ("tags (value)", "model_version_tags (value)"),
    "mlflow/auth.db": ("users (name)",),
}


def make_machine(folder: Path) -> Path:
    """Write the folder; paths in its databases lead into it."""
    home = folder / "services"
    for file, tables in TABLES.items():
        (home / file).parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(home / file)) as connection, connection:
            for table in tables:
                connection.execute(f"CREATE TABLE {table}")
                connection.execute(f"INSERT INTO {table.split()[0]} VALUES (?)", [str(folder / "steps" / "one")])
    texts = {
        "services/credentials.json": "{}",
        "services/signing-key.pem": "the private key",
        "services/verify-key.pem": "the public key",
        "services/mlflow.log": "a log",
        "services/mlflow/artifacts/1/weights.safetensors": "weights",
        "services/pictures/key/a.png": "a picture",
        "steps/one/weights.safetensors": "weights",
        "cache/models/weights.safetensors": "weights of the cache",
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder
