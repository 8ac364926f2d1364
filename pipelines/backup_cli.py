"""`editloop backup` and `editloop restore`: a folder's services, dataset repository and files, elsewhere and back."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from pipelines.input_options import plain_folder
from pipelines.lineage_cli import Unsigned
from pipelines.service_option import DEFAULT_SERVICES

Store = Annotated[str, typer.Option("--to", help="Where back-ups are: a folder, or s3://BUCKET/PREFIX.")]
Source = Annotated[Path, typer.Option("--services", help="Folder of the demo or of `editloop up` to back up.")]
Target = Annotated[Path, typer.Option("--services", help="The folder to restore, missing or empty.")]
MEGABYTE = 2**20


def backup_command(
    to: Store,
    services: Source = DEFAULT_SERVICES,
    name: Annotated[str, typer.Option(help="Name of the back-up; by default date and time in UTC.")] = "",
    keep: Annotated[int, typer.Option(min=0, help="Back-ups that stay; older ones are deleted. 0: all stay.")] = 0,
    with_secrets: Annotated[
        bool, typer.Option("--with-secrets", help="Put log-ins and the private signing key into the back-up too.")
    ] = False,
    show: Annotated[bool, typer.Option("--list", help="List the back-ups that are there, and make none.")] = False,
) -> None:
    """Back up Label Studio, MLflow, the dataset repository and the files of a folder, while its services run.

    Of the files, only those that changed are read and stored again. A back-up that is cut off does not exist; the same
    call begins anew and uses what is stored. On a cluster a CronJob does this: docs/cluster.md.

    For example: editloop backup --services runs/demo --to /mnt/backups --keep 14
    """
    from infra.backup import back_up_services
    from infra.backup_folder import default_name, list_backups, thin_out
    from infra.file_store import open_store

    store = open_store(to)
    if show:
        backups = list_backups(store)
        heading = f"{'name':<24} {'made (UTC)':<17} {'of':<9} {'files':>7} {'MB':>9}  EditLoop  secrets"
        print(heading if backups else f"there are no back-ups in {store.address}")
        for title, backup in backups.items():
            print(
                f"{title:<24} {backup.created:%Y-%m-%d %H:%M}  {backup.kind:<9} {len(backup.files):>7,} "
                f"{backup.bytes / MEGABYTE:>9,.1f}  {backup.editloop:<8}  {'yes' if backup.with_secrets else 'no'}"
            )
        return
    folder = services.absolute()
    with _stopped("no back-up was made; the same call begins anew and uses what is stored"):
        made = back_up_services(folder, store, name or default_name(), with_secrets=with_secrets)
        deleted = thin_out(store, keep) if keep else []
    backup = made.backup
    print(
        f"{made.name}: {len(backup.files):,} files, {backup.bytes / MEGABYTE:,.1f} MB, of which "
        f"{made.new_bytes / MEGABYTE:,.1f} MB are new in {store.address}"
    )
    if deleted:
        print(f"deleted: {', '.join(deleted)}")
    if with_secrets:
        print("It holds log-ins and the private signing key: keep it where you keep secrets.")
    else:
        print(
            f"Not in it: log-ins and the private signing key (in {folder / 'services'}: credentials.json, "
            "annotators.json, signing-key.pem). Keep copies where you keep secrets, or call with --with-secrets."
        )


def restore_command(
    name: Annotated[str, typer.Argument(help="The back-up's name; `editloop backup --list` shows them.")],
    source: Annotated[str, typer.Option("--from", help="Where back-ups are: a folder, or s3://BUCKET/PREFIX.")],
    services: Target = DEFAULT_SERVICES,
    secrets: Annotated[
        Path | None,
        typer.Option(
            callback=plain_folder,
            help="Folder with credentials.json, signing-key.pem and annotators.json, for a back-up without them.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a folder that is not empty; all that is in it goes.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Check every byte of the back-up, and restore nothing.")] = (
        False
    ),
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Verify the lineage of all registered models at the end.")
    ] = True,
    unsigned_campaigns: Unsigned = False,
) -> None:
    """Restore a back-up on this machine, and verify the lineage of every registered model there.

    All of it is checked before anything is changed; then the folder appears, complete. Exit status 1: a lineage has a
    gap, which is named.

    For example: editloop restore 20261129-021700 --from /mnt/backups --services runs/demo --secrets ~/editloop-secrets
    """
    from infra.file_store import open_store
    from infra.restore import check_backup, restore_services

    store, folder = open_store(source), services.absolute()
    with _stopped("nothing was changed"):
        if check:
            backup = check_backup(store, name)
            print(f"{name}: {len(backup.files):,} files, {backup.bytes / MEGABYTE:,.1f} MB, all as they were stored")
            return
        backup = restore_services(store, name, folder, secrets=secrets, overwrite=overwrite)
    print(f"{folder}: restored from {name} of {backup.created:%Y-%m-%d %H:%M} UTC")
    if verify:
        with _stopped("all is restored; `editloop verify` checks each model"):
            all_hold = _verify_all(folder, accept_unsigned=unsigned_campaigns)
        if not all_hold:
            raise typer.Exit(1)


@contextmanager
def _stopped(consequence: str) -> Iterator[None]:
    """Say what follows where Ctrl-C, SIGTERM or SIGHUP ends the block."""
    from editloop.interruption import interrupt_on_termination

    try:
        with interrupt_on_termination():
            yield
    except KeyboardInterrupt:
        print(f"editloop: stopped; {consequence}", file=sys.stderr)
        raise typer.Exit(130) from None


def _verify_all(folder: Path, *, accept_unsigned: bool) -> bool:
    """Print for each registered version whether its lineage holds, and return whether all do."""
    from editloop.lineage.tracking import all_pages, client
    from pipelines.environment import services_of
    from pipelines.verify import verify

    gaps = 0
    with _own_services(), services_of(folder):
        for model in all_pages(client().search_registered_models):
            aliases = {str(number): alias for alias, number in model.aliases.items()}
            for version in all_pages(client().search_model_versions, f"name='{model.name}'"):
                number = str(version.version)
                alias = aliases.get(number)
                address = f"models:/{model.name}@{alias}" if alias else f"models:/{model.name}/{number}"
                chain = verify(address, accept_unsigned=accept_unsigned)
                gaps += chain.gap is not None
                print(f"{'✗' if chain.gap else '✓'} {address}: {chain.gap or f'{len(chain.links)} links hold'}")
    return gaps == 0


@contextmanager
def _own_services() -> Iterator[None]:
    """Hide the environment's MLflow within the block, so that the folder's own services are used."""
    uri = os.environ.pop("MLFLOW_TRACKING_URI", None)
    try:
        yield
    finally:
        if uri is not None:
            os.environ["MLFLOW_TRACKING_URI"] = uri
