"""`editloop agreement` and `editloop ratings`: statistics and formats of any ratings, ours or older ones."""

import typer

ratings_app = typer.Typer(no_args_is_help=True, help="Bring older ratings in, and take ours out.")
