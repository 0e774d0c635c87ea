"""The views as plotly figures: plain scatter, heat map and bar, which every host's plotly.js can draw."""

from __future__ import annotations

from typing import Any

import numpy as np

from geonb.widgets.decimate import buckets, extremes
from geonb.widgets.svg import PALETTE
from geonb.widgets.trace_columns import SERIES, TraceColumns

_POINTS = 2000


def themed(figure: Any, *, title: str, height: int) -> Any:
    """One look for every figure."""
    figure.update_layout(
        title={"text": title, "x": 0.01},
        height=height,
        template="plotly_white",
        margin={"l": 60, "r": 20, "t": 60, "b": 45},
        font={"family": "system-ui, sans-serif", "size": 12},
        legend={"orientation": "h", "y": 1.06, "x": 0},
    )
    return figure


def literal(text: str) -> str:
    """Text from a file as plotly shows it literally: plotly reads a few tags in labels."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def trace_figure(columns: TraceColumns, *, title: str) -> Any:
    """Bounds and step, losses, gap, and budgets over the steps."""
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=4,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.06,
        subplot_titles=(
            "step size and its bounds",
            "loss, nats per token",
            "duality gap, nats",
            "budget used, ‖dW‖₂ / R",
        ),
    )
    rows, values = extremes(columns.series.values, _POINTS)
    steps = columns.step.values[rows]
    series = {name: values[:, index] for index, name in enumerate(SERIES)}
    lines = (
        ("eta_ceiling", "ceiling", "vermilion", 1),
        ("eta_sps", "sps", "purple", 1),
        ("eta_weyl", "weyl", "sky", 1),
        ("eta_step", "step taken", "blue", 1),
        ("loss", "training batch", "grey", 2),
        ("gap", "duality gap", "green", 3),
    )
    for name, label, colour, row in lines:
        figure.add_scatter(
            x=steps, y=series[name], name=label, mode="lines", line={"color": PALETTE[colour]}, row=row, col=1
        )
    for name, label, colour in (("loss", "validation", "blue"), ("retention_loss", "held-out base text", "orange")):
        points = [event for event in columns.evaluations if isinstance(event.get(name), float)]
        figure.add_scatter(
            x=[event["step"] for event in points], y=[event[name] for event in points], name=label,
            mode="lines+markers", line={"color": PALETTE[colour]}, row=2, col=1,
        )  # fmt: skip
    if columns.strip is not None:
        picked = buckets(columns.strip.count, 200)
        figure.add_heatmap(
            x=columns.strip_step.values[picked], y=[literal(name) for name in columns.layers],
            z=columns.strip.values[picked].T / 255, zmin=0, zmax=1, colorscale="Cividis", reversescale=True,
            colorbar={"len": 0.22, "y": 0.1}, row=4, col=1,
        )  # fmt: skip
    figure.update_yaxes(type="log", row=1, col=1)
    figure.update_yaxes(type="log", row=3, col=1)
    figure.update_yaxes(autorange="reversed", showticklabels=False, row=4, col=1)
    figure.update_xaxes(title_text="step", row=4, col=1)
    return themed(figure, title=literal(title), height=900)


def spectrum_figure(view: Any) -> Any:
    """The heat map of a scalar, and the spectrum of the selected matrix."""
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=1, cols=2, subplot_titles=(view.label, literal(view.selected_title())))
    layers, roles, grid = view.grid()
    figure.add_heatmap(
        x=roles, y=[str(layer) for layer in layers], z=grid, colorscale="Cividis", reversescale=True,
        colorbar={"x": 0.45}, row=1, col=1,
    )  # fmt: skip
    geometry = view.selected
    if geometry is not None and not geometry.spectrum.is_zero:
        from geonb.widgets.spectrum_picture import random_twin

        spectrum = geometry.spectrum
        index = np.arange(1, len(spectrum.values) + 1)
        twin = random_twin(spectrum.shape, float(np.sqrt((spectrum.values**2).sum())))
        k, sigma_k = spectrum.structural_rank, spectrum.sigma_k
        for x, y, name, line, mode in (
            (index, spectrum.values, "singular values", {"color": PALETTE["blue"]}, "lines"),
            (index, twin, "random twin", {"color": PALETTE["grey"], "dash": "dash"}, "lines"),
            (
                [1, len(index)],
                [spectrum.noise_edge] * 2,
                "noise edge",
                {"color": PALETTE["green"], "dash": "dot"},
                "lines",
            ),
            ([k], [sigma_k], "k, sigma_k", {"color": PALETTE["vermilion"]}, "markers"),
        ):
            figure.add_scatter(x=x, y=y, name=name, mode=mode, line=line, row=1, col=2)
        figure.update_xaxes(type="log", title_text="index", row=1, col=2)
        figure.update_yaxes(type="log", row=1, col=2)
    figure.update_yaxes(autorange="reversed", title_text="layer", row=1, col=1)
    return themed(figure, title=literal(view.title), height=520)


def target_figure(plan: Any) -> Any:
    """Ranks by layer and role, and the trained parameters by role."""
    from plotly.subplots import make_subplots

    from geonb.widgets.target_picture import rank_grid

    layers, roles, ranks = rank_grid(plan)
    figure = make_subplots(rows=1, cols=2, column_widths=[0.6, 0.4], subplot_titles=("rank", "trained parameters"))
    figure.add_heatmap(
        x=roles, y=[str(layer) for layer in layers], z=ranks, colorscale="Cividis", reversescale=True,
        colorbar={"x": 0.55}, row=1, col=1,
    )  # fmt: skip
    totals = {role: sum(t.parameters for t in plan.targets if t.role == role) for role in roles}
    figure.add_bar(x=list(totals), y=list(totals.values()), marker={"color": PALETTE["blue"]}, row=1, col=2)
    figure.update_yaxes(autorange="reversed", title_text="layer", row=1, col=1)
    return themed(figure, title=literal(str(plan.model["name"])), height=460)


def adapter_figure(view: Any) -> Any:
    """Size by matrix beside the random adapter's, on a log axis."""
    import plotly.graph_objects as go

    rows = view.rows()
    names = [literal(row["name"]) for row in rows]
    unit = "‖dW‖₂ / σₖ" if view.is_relative else "‖dW‖₂"
    figure = go.Figure()
    figure.add_bar(
        y=names, x=[row["size"] for row in rows], name=unit, orientation="h", marker={"color": PALETTE["blue"]}
    )
    figure.add_scatter(
        y=names, x=[row["null"] for row in rows], name="random adapter", mode="markers", marker={"color": "#555"},
        error_x={"type": "data", "array": [
            row["null_high"] - row["null"] if row["null"] is not None else None for row in rows
        ]},
    )  # fmt: skip
    figure.update_xaxes(type="log", title_text=unit)
    figure.update_yaxes(autorange="reversed")
    title = f"{literal(view.audit.folder)}: {view.audit.scale_verdict}"
    return themed(figure, title=title, height=max(320, 120 + 18 * len(rows)))


def comparison_figure(compared: Any) -> Any:
    """Losses over the steps, and the change of each run's task loss with its interval."""
    from plotly.subplots import make_subplots

    from geonb.widgets.comparison_picture import COLOURS

    figure = make_subplots(
        rows=1, cols=2, column_widths=[0.65, 0.35], subplot_titles=("loss", "change against the base")
    )
    for index, run in enumerate(compared.runs):
        colour, label = COLOURS[index % len(COLOURS)], literal(run.label)
        for series, dash, name in ((run.validation, "solid", label), (run.retention, "dash", f"{label}, base text")):
            figure.add_scatter(
                x=[step for step, _ in series], y=[loss for _, loss in series], name=name, mode="lines+markers",
                line={"color": colour, "dash": dash}, row=1, col=1,
            )  # fmt: skip
        if run.task is not None:
            low, high = run.task.interval or (run.task.value, run.task.value)
            figure.add_scatter(
                x=[run.task.value], y=[label], mode="markers", marker={"color": colour, "size": 9}, showlegend=False,
                error_x={"type": "data", "symmetric": False, "array": [high - run.task.value],
                         "arrayminus": [run.task.value - low]}, row=1, col=2,
            )  # fmt: skip
    figure.update_xaxes(title_text="step", row=1, col=1)
    figure.update_yaxes(title_text="nats per token", row=1, col=1)
    figure.update_xaxes(title_text="nats per token", row=1, col=2)
    return themed(figure, title="Runs compared", height=460)


def runs_figure(rows: list[dict[str, Any]]) -> Any:
    """How far each run of a shelf has come, in steps of its horizon."""
    import plotly.graph_objects as go

    names = [literal(row["name"]) for row in rows]
    figure = go.Figure()
    figure.add_bar(
        y=names, x=[row["horizon"] for row in rows], name="horizon", orientation="h", marker={"color": "#ddd"}
    )
    figure.add_bar(
        y=names, x=[row["step"] for row in rows], name="step", orientation="h", marker={"color": PALETTE["blue"]},
        text=[literal(row["state"]) for row in rows],
    )  # fmt: skip
    figure.update_layout(barmode="overlay")
    figure.update_yaxes(autorange="reversed")
    return themed(figure, title="Runs", height=max(260, 120 + 24 * len(rows)))
