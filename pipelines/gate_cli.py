"""`editloop gate`: show a gate's settings, and simulate how often its verdict is wrong."""

from pathlib import Path
from typing import Annotated, TypeVar

import typer

gate_app = typer.Typer(no_args_is_help=True, help="See what a gate asks, and how often it promotes what it should not.")

Number = TypeVar("Number", int, float)
Gate = Annotated[str, typer.Argument(help="A shipped gate (reward, editor, open) or a YAML file.")]


@gate_app.command("show")
def show_gate_command(gate: Gate = "reward") -> None:
    """Check a gate's file and print it with every default filled in, as YAML to begin a gate of your own with.

    For example: editloop gate show reward > ours.yaml; editloop stage benchmark --gate ours.yaml ...
    """
    import yaml

    from editloop.evaluation.gates.settings import read_gate

    print(yaml.safe_dump(read_gate(gate).model_dump(mode="json"), sort_keys=False), end="")


@gate_app.command("calibrate")
def calibrate_gate_command(
    gate: Gate = "reward",
    out: Annotated[Path, typer.Option(help="Folder for calibration.md, .json and .png.")] = Path("runs/gate"),
    tasks: Annotated[str, typer.Option(help="Sizes to simulate, in held-out tasks of six pairs.")] = "50,100,200",
    gains: Annotated[str, typer.Option(help="True gains to simulate, in points of accuracy.")] = "0,1,2,3,5,8",
    simulated: Annotated[int, typer.Option(min=20, help="Simulated comparisons of each size and gain.")] = 500,
    seed: Annotated[int, typer.Option(help="Seed of the simulation.")] = 0,
) -> None:
    """Simulate how often a gate promotes a model that is no better (it should not), and one that is (its power).

    For example: editloop gate calibrate reward --out runs/gate
    """
    from editloop.content import write_file, write_json
    from editloop.evaluation.gates import calibration
    from editloop.evaluation.gates.settings import read_gate

    settings = read_gate(gate)
    rates = calibration.simulate_gate(
        settings,
        tasks=_numbers("--tasks", tasks, int),
        gains=[gain / 100 for gain in _numbers("--gains", gains, float)],
        simulated=simulated,
        seed=seed,
    )
    text = calibration.rates_markdown(settings, rates)
    write_file(out / "calibration.md", text)
    write_json(out / "calibration.json", calibration.rates_json(settings, rates))
    write_file(out / "calibration.png", calibration.power_plot(settings, rates))
    print(text)
    print(out / "calibration.png")


def _numbers(option: str, text: str, kind: type[Number]) -> list[Number]:
    from editloop.errors import EditLoopError

    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise EditLoopError(f"{option} {text}: give numbers with commas between, such as 50,100,200.") from None
