"""report.html of a finished run: verdict, trace, spectra, plan and verification on one self-contained page."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING

from geonb.errors import GeonbError, InputError
from geonb.records import atomic_write
from geonb.train.events import StopEvent
from geonb.train.gates import Verification
from geonb.train.run_folder import RunFolder
from geonb.train.samples import Samples
from geonb.widgets.spectrum_picture import spectra_picture, tail_map
from geonb.widgets.trace_picture import trace_picture

if TYPE_CHECKING:
    from geonb.models.checkpoint import Checkpoint

_STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;background:Canvas;color:CanvasText}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin-top:2.2rem;border-bottom:1px solid #8886;padding-bottom:.2rem}
.lead{opacity:.75;margin-top:0}.cards{display:flex;flex-wrap:wrap;gap:.8rem;margin:1.2rem 0}
.card{border:1px solid #8886;border-radius:.5rem;padding:.6rem .9rem;min-width:11rem;flex:1}
.card b{display:block;font-size:1.35rem}.card span{opacity:.7;font-size:.85rem}
.passed b{color:#009E73}.failed b{color:#D55E00}
.wide{overflow-x:auto}details>summary{cursor:pointer;margin:.6rem 0}
"""


def write_report(folder: str | Path) -> Path:
    """Write `report.html` into a run folder from its plan, trace and verification; returns the path."""
    run = RunFolder.open(folder)
    plan = run.plan()
    events = list(run.events())
    verification = Verification.load(run.verification_path) if run.verification_path.is_file() else None
    stop = next((event for event in reversed(events) if isinstance(event, StopEvent)), None)
    title = f"{plan.model['name']} on {plan.data['path']}"
    body = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="lead">{html.escape(_lead(plan, stop))}</p>',
        _cards(verification),
        f'<h2>Trace</h2><div class="wide">{trace_picture(events)}</div>',
        f"<h2>Geometry</h2>{_geometry(plan)}",
    ]
    if verification is not None:
        body.append(f'<h2>Verification</h2><div class="wide">{verification.to_html()}</div>')
    if run.samples_path.is_file():
        written = Samples.load(run.samples_path).to_html()
        body.append(f'<h2>Before and after</h2><div class="wide">{written}</div>')
    body.append(f"<h2>Plan</h2>{plan.to_html()}")
    document = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>{''.join(body)}</body></html>"
    )
    return atomic_write(run.report_path, document)


def _lead(plan, stop: StopEvent | None) -> str:
    ranks = [target.rank for target in plan.chosen()]
    between = f", ranks {min(ranks)} to {max(ranks)}" if ranks else ""
    text = (
        f"{len(ranks)} matrices{between}, "
        f"batch {plan.batch['size']}, horizon {plan.horizon['steps']} steps, controller {plan.controller['name']}."
    )
    return text + (f" Ended at step {stop.step}: {stop.because}." if stop is not None else " Still running.")


def _cards(verification: Verification | None) -> str:
    if verification is None:
        return '<p class="lead">This run has not been verified.</p>'
    cards = [
        (verification.verdict, verification.verdict, f"{len(verification.gates)} gates checked"),
        ("", f"{verification.base_loss:.3f} → {verification.adapted_loss:.3f}", "task loss, nats per token"),
    ]
    if verification.base_retention is not None and verification.adapted_retention is not None:
        change = f"{verification.base_retention:.3f} → {verification.adapted_retention:.3f}"
        cards.append(("", change, "loss on held-out base text"))
    if verification.layers:
        worst = max(layer.over_sigma_k for layer in verification.layers)
        cards.append(("", f"{worst:.2f} σₖ", "largest weight change, spectral norm"))
    return '<div class="cards">' + "".join(
        f'<div class="card {html.escape(kind)}"><b>{html.escape(value)}</b><span>{html.escape(label)}</span></div>'
        for kind, value, label in cards
    ) + "</div>"  # fmt: skip


def _at_hand(source: str) -> Checkpoint:
    """The model where it lies on this machine: whoever looks at a stranger's run has asked for no download."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    from geonb.models.checkpoint import Checkpoint, registered_folder

    try:
        is_folder = Path(source).expanduser().is_dir()
    except (OSError, ValueError, RuntimeError):
        # a name that no folder can have
        is_folder = False
    if is_folder or source == "embedded" or registered_folder(source) is not None:
        return Checkpoint.open(source)
    try:
        folder = snapshot_download(source, local_files_only=True)
    except (HfHubHTTPError, OSError, ValueError):
        raise InputError(
            f"the plan's model {source[:200]} is neither a folder here nor in the hub's cache, and a report downloads "
            "nothing: download it first and write the report again."
        ) from None
    return Checkpoint(source, Path(folder))


def _geometry(plan) -> str:
    """The spectra, from the cache that the plan filled; a model that has gone away, or was never here, leaves a sentence."""
    from geonb.models.geometry import stream_geometry

    try:
        checkpoint = _at_hand(plan.model["source"])
        names = {target.name for target in plan.chosen()}
        refs = tuple(ref for ref in checkpoint.refs if ref.name in names)
        geometries = list(stream_geometry(checkpoint, refs=refs))
    except GeonbError as error:
        return f"<p>The spectra are left out: {html.escape(str(error))}</p>"
    return (
        f'<div class="wide">{tail_map(geometries)}</div><details open><summary>Singular values</summary>'
        f'<div class="wide">{spectra_picture(geometries)}</div></details>'
    )
