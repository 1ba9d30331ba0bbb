"""The ladder over the whole matrix, and over the broken ports."""

from __future__ import annotations

import json
from pathlib import Path

from proof.stages import FOLDER, Result, figure, run, table
from tfport.equivalence.result import FIRST_NUMERICAL, RUNGS
from tfport.equivalence.verdicts import EPSILON_RATIO, FLOOR, SLACK
from tfport.paradigms import PARADIGMS

MNIST_STEPS = 500
BROKEN_STEPS = 20
PASSING = ("identical", "rounding")


def compared(name: str, *settings: str) -> Result:
    """One `tfport compare` in a process of its own: its report as JSON, its page beside it."""
    path = FOLDER / f"{name}-report.json"
    path.unlink(missing_ok=True)
    code = run("compare", *settings, f"--json={path}", f"--html={FOLDER / name}.html")
    if code == 2:
        raise RuntimeError(f"the comparison {name} could not be made; what it said stands above")
    report: Result = json.loads(path.read_text())
    return report


def one_model(model: str) -> Result:
    """All four paradigms of one model, at the length and batch that `compare` takes by default."""
    return compared(f"matrix-{model}", f"--model={model}", f"--paradigms={','.join(PARADIGMS)}")


def on_mnist(data_dir: str) -> Result:
    """vanilla_gan on MNIST, longer."""
    settings = [f"--steps={MNIST_STEPS}", "--dataset=mnist", f"--data_dir={Path(data_dir).absolute()}"]
    return compared("ladder-mnist", "--model=vanilla_gan", f"--paradigms={','.join(PARADIGMS)}", *settings)


def broken_ports() -> Result:
    """Every factory of tests/broken_ports.py against tf1_graph."""
    from broken_ports import MISTAKES

    sides = ("tf1_graph", *(f"broken_ports:{name}" for name in MISTAKES))
    return compared("broken-ports", "--model=vanilla_gan", f"--paradigms={','.join(sides)}", f"--steps={BROKEN_STEPS}")


# --- Text -------------------------------------------------------------------------------------------------------------
def matrix_text(results: dict[str, Result]) -> str:
    """A row a model, a column a paradigm: the verdict and the largest difference."""
    rows = []
    for model, result in results.items():
        repeat = next(rung for rung in result["pairs"][0]["rungs"] if rung["rung"] == "repeat")
        row = [f"`{model}`", f"{result['steps']} × {result['batch_size']}", repeat["verdict"]]
        rows.append(row + [f"{pair['verdict']}{_largest(pair)}" for pair in result["pairs"]])
    pairs = next(iter(results.values()))["pairs"]
    header = ["model", "steps × batch", f"{pairs[0]['legacy']} repeats", *(f"→ {pair['modern']}" for pair in pairs)]
    return table(header, rows)


def _largest(pair: Result) -> str:
    """The rung with the largest float64 difference, float32 beside it."""
    rounded = [rung for rung in pair["rungs"][FIRST_NUMERICAL:] if rung["verdict"] == "rounding"]
    if not rounded:
        return ""
    worst = max(rounded, key=lambda rung: float(rung["float64_relative"]))
    return f" {figure(worst['float32_relative'])} → {figure(worst['float64_relative'])}"


def rungs_text(result: Result) -> str:
    """One comparison, a row a rung."""
    rows = []
    for number, name in enumerate(RUNGS):
        cells = [f"{number} {name}"]
        for pair in result["pairs"]:
            rung = next(each for each in pair["rungs"] if each["rung"] == name)
            numbers = ""
            if rung["verdict"] == "rounding":
                numbers = f" {figure(rung['float32_relative'])} → {figure(rung['float64_relative'])}"
            cells.append(f"{rung['verdict']}{numbers}")
        rows.append(cells)
    header = ["rung", *(f"{pair['legacy']} → {pair['modern']}" for pair in result["pairs"])]
    about = f"{result['steps']} steps, seed {result['seed']}, {result['dataset']}, {result['seconds']['total']} s."
    return f"{about}\n\n{table(header, rows)}"


def broken_text(result: Result) -> str:
    """What was found of each broken port."""
    rows = []
    for pair in result["pairs"]:
        rungs = {rung["rung"]: rung for rung in pair["rungs"]}
        static = [
            finding
            for name in ("structure", "initialisation")
            if rungs[name]["verdict"] in ("different", "not_comparable")
            for finding in rungs[name]["findings"]
        ]
        located = pair["located"]
        first = rungs[located]["first_divergence"] if located else None
        where = f"step {first['step']}, {first['phase'] or 'both phases'}, `{first['tensor']}`" if first else "–"
        shrinks = [float(rung["shrink"]) for rung in pair["rungs"] if rung["shrink"] not in (None, "inf")]
        rows.append(
            [
                pair["modern"].partition(":")[2],
                pair["verdict"],
                static[0] if static else "–",
                located or "–",
                where,
                f"{max(shrinks):.0e}" if shrinks else "–",
            ]
        )
    return table(["mistake", "verdict", "structural finding", "first numerical rung", "where", "largest shrink"], rows)


def shrink_text(results: dict[str, Result]) -> str:
    """How the correct ports' differences shrink, beside the bound."""
    rows = []
    for model, result in results.items():
        for pair in result["pairs"]:
            shrinks = [float(rung["shrink"]) for rung in pair["rungs"] if rung["shrink"] is not None]
            largest = max((float(rung["float64_relative"] or 0) for rung in pair["rungs"]), default=0.0)
            if shrinks or largest:
                shrink = f"{max(shrinks):.2g}" if shrinks else "–"
                rows.append([f"`{model}`", f"{pair['legacy']} → {pair['modern']}", shrink, f"{largest:.1e}"])
    return (
        f"Shrink is the float64 difference over 2⁻²⁹ of the float32 one, for the same tensor. The bound is "
        f"{SLACK:.0f}, with a\nfloor of {FLOOR:.1e} on the relative float64 difference; 2⁻²⁹ is {EPSILON_RATIO:.2e}. "
        "Correct ports:\n\n" + table(["model", "pair", "largest shrink", "largest relative float64 difference"], rows)
    )


def failures(results: dict[str, Result], mistakes: Result) -> list[str]:
    """What the ladder did not prove, in words."""
    return [
        *(
            f"{model} in {pair['modern']} is {pair['verdict']}"
            for model, result in results.items()
            for pair in result["pairs"]
            if pair["verdict"] not in PASSING
        ),
        *(
            f"{model} in gradient_tape is {pair['verdict']} and not identical"
            for model, result in results.items()
            for pair in result["pairs"]
            if pair["modern"] == "gradient_tape" and pair["verdict"] == "rounding"
        ),
        *(f"{pair['modern']} passed" for pair in mistakes["pairs"] if pair["verdict"] in PASSING),
    ]
