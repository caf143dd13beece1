"""The report of `benchmarks.gpu`: its JSON file, the table, the goals, and what makes a run a failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Numbers = dict[str, Any]

GRID = "grid of 8 prompts and 8 scales"
"""Name of the measurement of the grid."""


class Report:
    """The results so far, and their file.

    Args:
        path: the JSON file; None writes none.
    """

    def __init__(self, path: Path | None, values: Numbers) -> None:
        self.path, self.values = path, values

    def save(self) -> None:
        """Write the results so far, whole or not at all."""
        self.values["goals"] = goals(self.values)
        if self.path is not None:
            unfinished = self.path.with_suffix(".unfinished")
            unfinished.write_text(json.dumps(self.values, indent=1) + "\n")
            unfinished.replace(self.path)


def goals(values: Numbers) -> list[Numbers]:
    """The goals, each with the value of one model; `value` and `reached` are None if it was not measured."""
    rows: list[Numbers] = []

    def add(goal: str, model: str, value: float | None, limit: float, *, at_most: bool = False) -> None:
        reached = None if value is None else value <= limit if at_most else value >= limit
        sign = "<=" if at_most else ">="
        rows.append({"goal": f"{goal} {sign} {limit:g}", "model": model, "value": value, "reached": reached})

    speed: Numbers = values.get("speed", {})
    for name, of_model in speed.items():
        measurements: Numbers = of_model["measurements"]
        one, grid = (measurements.get(work, {}).get("ratios", {}) for work in ("one stream", GRID))
        add("one guided stream / transformers' guided", name, one.get("guided_speedup"), 8)
        add("guided / unguided seconds", name, one.get("cost_of_guidance"), 1.05, at_most=True)
        add("grid / transformers in batches of 8", name, grid.get("guided_speedup"), 50)
        if name == "8B":
            step = measurements.get("64 rows", {}).get("contenders", {}).get("lab guided", {})
            add("share of the bandwidth limit at 64 rows", name, step.get("share_of_bandwidth"), 0.6)
        add("seconds to capture all graphs", name, of_model.get("capture_seconds"), 20, at_most=True)
    for name, of_model in values.get("profile", {}).items():
        calls = [of_workload.get("host_synchronisations") for of_workload in of_model.values()]
        add("host synchronisations per step", name, None if None in calls else max(calls), 1, at_most=True)
    return rows


def table(values: Numbers) -> str:
    """The results as lines of plain text."""
    laws: dict[str, Numbers] = values["laws"]
    lines = [" ".join(f"{key}={value}" for key, value in values["machine"].items())]
    for model, is_static in values["static_steps"].items():
        lines.append(f"{model} runs {'with static steps' if is_static else 'WITHOUT static steps'}")
    lines += [f"{'holds' if law['passed'] else 'FAILS':6} {name}: {_law(law)}" for name, law in laws.items()]
    if values["bfloat16"]:
        equal, texts = values["bfloat16"]["equal"], values["bfloat16"]["texts"]
        lines.append(f"in bfloat16 {equal} of {texts} texts are equal in a batch and alone")
    if values["limits"]:
        copy, gemm = values["limits"]["copy_bytes_s"] / 1e9, values["limits"]["gemm_flop_s"] / 1e12
        lines.append(f"copy {copy:,.0f} GB/s, bfloat16 GEMM {gemm:,.1f} TFLOP/s")
    for model, numbers in values["speed"].items():
        for work, results in numbers["measurements"].items():
            lines.append(f"{model}, {work}")
            lines += [f"  {name:28} {_cell(result)}" for name, result in results["contenders"].items()]
            lines += [f"  {name:28} {value:.3g}" for name, value in results["ratios"].items()]
    for model, workloads in values["profile"].items():
        for work, calls in workloads.items():
            counted = ", ".join(f"{name.replace('_', ' ')} {count:.4g}" for name, count in calls.items())
            lines.append(f"{model}, {work}, calls per step: {counted}")
    for goal in values["goals"]:
        state = {None: "not measured", True: "reached", False: "NOT REACHED"}[goal["reached"]]
        value = "–" if goal["value"] is None else f"{goal['value']:.4g}"
        lines.append(f"{state:12} {goal['model']:5} {goal['goal']}: {value}")
    lines += [f"ERROR in {part}: {error}" for part, error in values["errors"].items()]
    return "\n".join(lines)


def failures(values: Numbers) -> list[str]:
    """What makes a run a failure: broken laws, models without static steps, and errors of the lab."""
    failed = [name for name, law in values["laws"].items() if not law["passed"]]
    failed += [
        f"{model}, static steps" for model, is_static in values["static_steps"].items() if not is_static
    ]
    failed += values["errors"]
    for model, numbers in values["speed"].items():
        for work, results in numbers["measurements"].items():
            failed += [
                f"{model}, {work}, {name}"
                for name, result in results["contenders"].items()
                if name.startswith("lab") and "error" in result
            ]
    return failed


def _law(law: Numbers) -> str:
    """The numbers of one law."""
    if "error" in law:
        return law["error"]
    return (
        f"{law['equal']} of {law['texts']} texts are equal, {law['ties']} up to a tie, {law['different']} "
        f"different; log-probs differ by at most {law['largest_difference']:.1g}"
    )


def _cell(result: Numbers) -> str:
    """The numbers of one contender."""
    if "error" in result:
        return result["error"]
    text = f"{result['tokens_s']:12,.0f} tokens/s"
    if "step_ms" in result:
        text += f"  {result['rows']:.0f} rows, step {result['step_ms']:.3g} ms, "
        text += f"{result['share_of_limit']:.0%} of the limit"
    return text
