"""AdapterCard: what a saved adapter does to each matrix, held against sigma_k and against a random adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from geonb.adapters.audit import AdapterAudit, audit_adapter
from geonb.widgets.view import View, picture_html


class AdapterCard(View):
    """Any PEFT LoRA adapter as a card: ||dW||_2 / sigma_k by matrix, the rank it uses, and whether its scale is sound.

    `source` is an `AdapterAudit`, or the folder of an adapter, measured against `base` as `audit_adapter` does. Each
    matrix's bar stands beside the interval of random adapters of equal shape, rank and Frobenius norm: above it the
    norm is concentrated in fewer directions than chance would use, below it it is spread over more.
    """

    name = "adapter_card"

    def __init__(self, source: AdapterAudit | str | Path, *, base: Any = None) -> None:
        super().__init__()
        self.audit = source if isinstance(source, AdapterAudit) else audit_adapter(source, base=base)

    def __repr__(self) -> str:
        return f"AdapterCard({Path(self.audit.folder).name!r}, {len(self.audit.layers)} matrices)"

    @property
    def record(self) -> AdapterAudit:
        """The audit that is shown."""
        return self.audit

    @property
    def is_relative(self) -> bool:
        """Whether norms are shown in units of sigma_k; without a base they stand as they are."""
        return any(layer.over_sigma_k is not None for layer in self.audit.layers)

    def rows(self) -> list[dict[str, Any]]:
        """One row a matrix: its size, the random adapter's, and both ranks, in the unit of `is_relative`."""
        found = []
        for layer in self.audit.layers:
            unit = (layer.sigma_k if self.is_relative else 1.0) or 0.0
            known = unit > 0
            found.append(
                {
                    "name": layer.name,
                    "role": layer.role,
                    "size": layer.norm / unit if known and layer.finite else None,
                    "null": layer.null_norm / unit if known and layer.finite else None,
                    "null_low": layer.null_interval[0] / unit if known and layer.finite else None,
                    "null_high": layer.null_interval[1] / unit if known and layer.finite else None,
                    "limit": layer.sigma_max / unit if known and layer.sigma_max is not None else None,
                    "norm": layer.norm if layer.finite else None,
                    "rank": layer.rank,
                    "rank_used": layer.rank_used if layer.finite else None,
                    "scale": layer.scale,
                    "moved": layer.moved,
                }
            )
        return found

    def state(self) -> dict[str, Any]:
        audit = self.audit
        return {
            "title": Path(audit.folder).name,
            "folder": audit.folder,
            "base": audit.base,
            "verdict": audit.scale_verdict,
            "because": audit.because,
            "declared": {
                "r": audit.declared_rank,
                "alpha": audit.declared_alpha,
                "rule": audit.scale_rule,
                "parameters": audit.n_parameters,
            },
            "unit": "‖dW‖₂ / σₖ" if self.is_relative else "‖dW‖₂",
            "is_relative": self.is_relative,
            "rows": self.rows(),
            "findings": [[one.kind, one.subject, one.because] for one in audit.findings],
        }

    def static(self) -> str:
        from geonb.widgets.adapter_picture import adapter_picture

        return picture_html(adapter_picture(self), alt=f"Adapter {self.audit.folder}: {self.audit.because}")

    def figure(self) -> Any:
        from geonb.widgets.figures import adapter_figure

        return adapter_figure(self)
