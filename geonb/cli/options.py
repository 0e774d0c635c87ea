"""The options that several commands share, written once, so that they mean the same by each."""

from __future__ import annotations

import typer

MODEL_ARGUMENT = typer.Argument(..., metavar="MODEL", help="A Hugging Face folder, a hub id, or `embedded`.")
MODEL = typer.Option(..., "--model", "-m", help="A Hugging Face folder, a hub id, or `embedded`.")
DATA = typer.Option(..., "--data", "-d", help="JSONL of {text} or {messages}, or `embedded:kjv`, `embedded:chat`.")
OUTPUT = typer.Option(None, "--output", "-o", help="The run's folder; default runs/MODEL-DATA-SEED.")
EVAL_DATA = typer.Option(None, "--eval-data", help="JSONL to validate on; default: a split derived from the data.")
SEED = typer.Option(None, "--seed", help="Default: derived from the bytes of model and data.")
SEQ_LENGTH = typer.Option(None, "--seq-length", help="Tokens per example; default: the smallest that covers the data.")
MAX_STEPS = typer.Option(None, "--max-steps", help="The horizon T in steps; default: one epoch, at least 200.")
EPOCHS = typer.Option(None, "--epochs", help="The horizon in epochs (excludes --max-steps).")
CONTROLLER = typer.Option("frank-wolfe", help="frank-wolfe, mass or mass-layer; adamw, muon, scaled-gd to compare.")
BASIS = typer.Option("tail", help="Where the adapter may act: tail, top, full, gradient or random.")
BUDGET = typer.Option(
    "balanced",
    help="How far dW may go: strict (R = sigma_k), balanced (3 sigma_k, at most sigma_max) or open (sigma_max).",
)
SIDES = typer.Option("one", help="Which factors move: one (B in the ball, A fixed) or two.")
MEMORY_BUDGET = typer.Option(None, "--memory-budget", help="Bytes that adapter and its state may take, such as 2GB.")
MAX_RANK = typer.Option(None, "--max-rank", help="An override of the derived ranks from above; the plan says so.")
RANK_RULE = typer.Option(
    "tail", "--rank-rule", help="tail is derived; customary, knee, noise, data or gradient override it."
)
EXCLUDE_ROLES = typer.Option(None, "--exclude-roles", help="An override: roles that are not trained, such as q,k.")
TARGET_EXPERTS = typer.Option(None, "--target-experts", help="Experts to adapt, such as L0.E1,L3.E0, or full names.")
ENTROPY_REG = typer.Option(False, "--entropy-reg/--no-entropy-reg", help="Keep half of the base model's entropy.")
TOPO_MONITOR = typer.Option(False, "--topo-monitor/--no-topo-monitor", help="Watch the topology of hidden states.")
DIM_MONITOR = typer.Option(False, "--dim-monitor/--no-dim-monitor", help="Watch their intrinsic dimension.")
BENCHMARK = typer.Option(None, "--benchmark", help="Task suite before and after (needs the `eval` extra).")
DEVICE = typer.Option("auto", help="auto, cpu, cuda or mps.")
AS_JSON = typer.Option(False, "--json", help="Print one JSON document; its schema: `geonb schema GROUP COMMAND`.")
