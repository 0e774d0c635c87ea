"""Running a checkpoint on PyTorch: load it frozen, read logits, continue prompts greedily."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint

# prompts of one length that are continued together; their caches are in memory at once
_TOGETHER = 16


@dataclass(slots=True)
class TorchRuntime:
    """A loaded causal language model on one device, in evaluation mode, with nothing to train of its own.

    On a CPU the weights are float32, whatever their stored dtype (bfloat16 arithmetic is slower there and the
    conversion is exact); on an accelerator a half-precision checkpoint keeps its dtype.
    """

    checkpoint: Checkpoint
    model: Any
    tokenizer: Any
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def load(cls, checkpoint: Checkpoint, *, device: str = "auto", dtype: str = "auto") -> TorchRuntime:
        """Load the weights; raises `InputError` for an encoder, an adapter beside it, an absent device, or what does not fit."""
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        if not checkpoint.is_causal:
            raise InputError(
                f"{checkpoint.source} is {checkpoint.architecture or 'of an unknown architecture'}, not a causal language "
                "model, so it cannot be trained or continued here; `geonb model info` and `model capacity` accept it."
            )
        if (checkpoint.folder / "adapter_config.json").exists():
            raise InputError(
                f"{checkpoint.source} holds an adapter beside its weights, and transformers would apply it unseen: take "
                "adapter_config.json and its weights out of the folder, or merge the adapter."
            )
        place = pick_device(device)
        kind = _pick_dtype(checkpoint, place, dtype)
        verbosity = logging.get_verbosity()
        bars = logging.is_progress_bar_enabled() if hasattr(logging, "is_progress_bar_enabled") else True
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                model: Any = AutoModelForCausalLM.from_pretrained(
                    checkpoint.folder, dtype=kind, trust_remote_code=False, local_files_only=True, use_safetensors=True
                )
        except Exception as error:  # a stranger's config can make transformers raise nearly anything
            reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
            raise InputError(
                f"{checkpoint.source} cannot be loaded ({reason}): check its config and weights."
            ) from None
        finally:
            logging.set_verbosity(verbosity)
            if bars:
                logging.enable_progress_bar()
        model = model.to(device=place).eval().requires_grad_(False)
        return cls(checkpoint=checkpoint, model=model, tokenizer=checkpoint.load_tokenizer(), device=place, dtype=kind)

    def module(self, path: str) -> nn.Module:
        """The module at `path` of the model."""
        return self.model.get_submodule(path)

    @torch.no_grad()
    def logits(self, input_ids: Sequence[int]) -> Tensor:
        """Logits of one sequence: (tokens, vocabulary), float32, on the CPU."""
        ids = torch.tensor([list(input_ids)], dtype=torch.long, device=self.device)
        return self.model(input_ids=ids, use_cache=False).logits[0].float().cpu()

    @torch.no_grad()
    def generate(self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int = 64) -> list[list[int]]:
        """Greedy continuations, one list of new tokens a prompt, cut after the end token (which is included).

        Prompts of equal length run together; padding would change some architectures' positions, so lengths are never
        mixed in one batch.
        """
        end = self.tokenizer.eos_token_id
        groups: dict[int, list[int]] = {}
        for index, prompt in enumerate(prompts):
            groups.setdefault(len(prompt), []).append(index)
        found: list[list[int]] = [[] for _ in prompts]
        limit = self.checkpoint.context_length
        for length, rows in [(length, part) for length, whole in groups.items() for part in _parts(whole)]:
            steps = max_new_tokens if limit is None else max(0, min(max_new_tokens, limit - length))
            ids = torch.tensor([list(prompts[row]) for row in rows], dtype=torch.long, device=self.device)
            for row, tokens in zip(rows, self._continue(ids, steps, end), strict=True):
                found[row] = tokens
        return found

    def _continue(self, ids: Tensor, steps: int, end: int | None) -> list[list[int]]:
        tokens: list[Tensor] = []
        ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        past, current = None, ids
        for _ in range(steps):
            output = self.model(input_ids=current, past_key_values=past, use_cache=True)
            past = output.past_key_values
            current = output.logits[:, -1].argmax(-1, keepdim=True)
            tokens.append(current[:, 0])
            if end is not None:
                ended |= current[:, 0] == end
                if bool(ended.all()):
                    break
        if not tokens:
            return [[] for _ in range(len(ids))]
        rows = torch.stack(tokens, dim=1).tolist()
        return [row[: row.index(end) + 1] if end in row else row for row in rows]


def _parts(rows: list[int]) -> list[list[int]]:
    return [rows[start : start + _TOGETHER] for start in range(0, len(rows), _TOGETHER)]


def pick_device(device: str) -> torch.device:
    """cuda, then mps, then cpu for "auto"; a named device must be there."""
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if present[name]))
    kind = device.partition(":")[0]
    if not present.get(kind, False):
        there = ", ".join(name for name, is_there in present.items() if is_there)
        raise InputError(f"the device {device!r} is not there; allowed here are auto, {there}.")
    return torch.device(device)


def _pick_dtype(checkpoint: Checkpoint, device: torch.device, dtype: str) -> torch.dtype:
    if dtype != "auto":
        return getattr(torch, dtype)
    if device.type == "cpu":
        return torch.float32
    stored = {ref.dtype for ref in checkpoint.refs if ref.targetable}
    for name in ("bfloat16", "float16"):
        if stored == {name}:
            return getattr(torch, name)
    return torch.float32
