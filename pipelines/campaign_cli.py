"""`editloop campaign`: what a campaign lead does from the command line."""

import typer

campaign_app = typer.Typer(no_args_is_help=True, help="Open, follow, judge and close an annotation campaign.")
