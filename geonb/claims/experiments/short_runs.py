"""Short trainings that differ in one thing and are paired by seed: the experiment behind most claims about a step rule.

What is trained and how is an `Arm` of the benchmark, set up by its own `attach`; AdamW can be given another `Recipe`. One
seed fixes the split of the data, the order of the batches and the first factors, so that a difference of two runs of one
seed is a difference of what was changed. Losses are held-out, in nats per counted token.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geonb.errors import InputError
from geonb.geometry.inference import over_seeds
from geonb.geometry.measurement import Measurement
from geonb.plan.plan import Plan
from geonb.records import Record
from geonb.workbench.benchmark.arm import Arm

DOCUMENTED = "documented"  # the value that the published formula gives each matrix
_EVALUATION_BATCH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(Record):
    """AdamW with every custom by name; `epsilon` and `decay` are numbers, or "documented" for those of each matrix.

    `clip` is None for no clipping, `ramp` the share of the steps over which the rate rises, `schedule` "cosine" (to zero,
    after the ramp) or "constant". Decay is decoupled and times the rate.
    """

    rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float | str = 1e-8
    decay: float | str = 0.0
    clip: float | None = 1.0
    ramp: float = 0.05
    schedule: str = "cosine"

    def __post_init__(self) -> None:
        for name, value in (("epsilon", self.epsilon), ("decay", self.decay)):
            if isinstance(value, str) and value != DOCUMENTED:
                raise InputError(f"a recipe was given the {name} {value!r}; allowed are a number and {DOCUMENTED!r}.")
        if self.schedule not in ("cosine", "constant"):
            raise InputError(f"a recipe was given the schedule {self.schedule!r}; allowed are cosine and constant.")
        if not 0 < self.rate < math.inf or not 0 <= self.ramp <= 1:
            raise InputError(
                f"a recipe was given the rate {self.rate:g} and the ramp {self.ramp:g}; allowed are a finite rate above 0 "
                "and a ramp from 0 to 1."
            )

    def share(self, number: int, steps: int) -> float:
        """The part of the rate that step `number`, from 0, of `steps` has.

        >>> Recipe(rate=1.0, ramp=0.5, schedule="constant").share(0, 4)
        0.5
        """
        ramp = math.ceil(self.ramp * steps)
        if number < ramp:
            return (number + 1) / ramp
        if self.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (number - ramp) / max(1, steps - ramp)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortRun(Record):
    """What one short training did; `loss` is inf where it diverged, `retention` None where it was not measured."""

    arm: str
    seed: int
    base: float  # held-out loss of the untouched model
    loss: float  # held-out loss after the last step
    base_retention: float | None
    retention: float | None  # loss on held-out text of the base model's own kind
    training: tuple[float, ...]  # the batch's loss before each step
    gradients: tuple[float, ...]  # the norm of the whole gradient before each step
    changes: dict[str, float] = field(default_factory=dict)  # ||dW||_2 of each matrix at the end
    trained: int = 0  # numbers

    @property
    def gain(self) -> float:
        """How far the held-out loss fell; -inf for a run that diverged."""
        return self.base - self.loss

    @property
    def rise(self) -> float | None:
        """How far the loss on the base model's own kind of text rose."""
        if self.retention is None or self.base_retention is None:
            return None
        return self.retention - self.base_retention

    def summary(self) -> str:
        return f"ShortRun({self.arm}, seed {self.seed}: {self.base:.3f} -> {self.loss:.3f})"


Prepare = Callable[[Any, Plan], None]  # changes what was attached, before the first step
Watch = Callable[[int, Any, Any], None]  # after each step: how many were made, what is attached, what the step returned


class ShortRuns:
    """Trainings of `model` on `domain` for `steps` steps of `batch` examples; each seed's plan and base are made once.

    `n_train` is how many training examples there are, by default as many as are needed to see none twice; `n_evaluation` and
    `n_retention` limit what is scored. The files lie in a temporary folder that goes with the object.

    >>> runs = ShortRuns("embedded", "arithmetic", steps=8)     # doctest: +SKIP
    >>> runs.run(adamw(3e-3, "8"), seed=0).gain                 # doctest: +SKIP
    """

    def __init__(
        self,
        model: str,
        domain: str,
        *,
        steps: int,
        batch: int = 4,
        n_train: int | None = None,
        n_evaluation: int = 64,
        n_retention: int = 0,
    ) -> None:
        from geonb.workbench.benchmark.domains import domain_of

        domain_of(domain)
        for name, value in (("steps", steps), ("batch", batch), ("n_evaluation", n_evaluation)):
            if value < 1:
                raise InputError(f"short runs were given {value} for {name}; allowed is a whole number from 1 on.")
        self.model, self.domain, self.steps, self.batch = model, domain, steps, batch
        # by default no example is seen twice; a small file keeps the reading short
        self.n_train = max(256, steps * batch) if n_train is None else n_train
        self.n_evaluation, self.n_retention = n_evaluation, n_retention
        self._folder = Path(tempfile.mkdtemp(prefix="geonb-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._plans: dict[int, Plan] = {}
        self._inputs: dict[int, Any] = {}
        self._base: dict[int, tuple[float, float | None]] = {}

    def plan(self, seed: int) -> Plan:
        """The product's plan of this seed's split, uncalibrated, but for the batch that is given."""
        from geonb.plan import build_plan
        from geonb.workbench.benchmark.domains import domain_files
        from geonb.workbench.benchmark.models import model_source

        if seed not in self._plans:
            training, evaluation = domain_files(self.domain, seed, self._folder, limit=self.n_train)
            made = build_plan(
                model_source(self.model),
                training,
                eval_data=evaluation,
                max_steps=self.steps,
                seed=seed,
                calibrate=False,
                device="cpu",
            )
            batch = {**made.batch, "size": self.batch, "micro": self.batch, "accumulation": 1}
            self._plans[seed] = dataclasses.replace(made, batch=batch)
        return self._plans[seed]

    def inputs(self, seed: int) -> Any:
        """The tokenised examples of this cell: `training`, `evaluation`, `retention` and the `checkpoint`."""
        from geonb.plan.inputs import load_inputs

        if seed not in self._inputs:
            self._inputs[seed] = load_inputs(self.plan(seed))
        return self._inputs[seed]

    def score(self, model: Any, seed: int) -> tuple[float, float | None]:
        """The loss of `model` on this seed's evaluation examples and on base text (None without any)."""
        from geonb.data.collate import pad_token
        from geonb.train.objective import evaluate

        inputs = self.inputs(seed)
        pad, device = pad_token(inputs.checkpoint.load_tokenizer()), next(model.parameters()).device

        def loss(examples: Sequence[Any]) -> float | None:
            if not examples:
                return None
            return evaluate(model, examples, pad=pad, device=device, batch_size=_EVALUATION_BATCH).loss

        task = loss(inputs.evaluation[: self.n_evaluation])
        assert task is not None
        return task, loss(inputs.retention[: self.n_retention])

    def base(self, seed: int) -> tuple[float, float | None]:
        """`score` of the untouched model."""
        from geonb.models.runtime import TorchRuntime

        if seed not in self._base:
            model = TorchRuntime.load(self.inputs(seed).checkpoint, device="cpu").model
            self._base[seed] = self.score(model, seed)
        return self._base[seed]

    def run(
        self,
        arm: Arm,
        seed: int,
        *,
        recipe: Recipe | None = None,
        prepare: Prepare | None = None,
        watch: Watch | None = None,
        loss_scale: float | Callable[[int], float] = 1.0,
        with_changes: bool = False,
    ) -> ShortRun:
        """Train `arm` and score it. `recipe` takes the place of the arm's own AdamW; `loss_scale` multiplies the loss before
        its gradient is taken, everywhere or at the steps where a function of the step's number says so; `with_changes`
        measures ||dW||_2 of every matrix at the end.
        """
        import torch

        from geonb.data.batches import batch_at
        from geonb.data.collate import pad_token
        from geonb.train.objective import forward_losses, to_tensors
        from geonb.workbench.benchmark.attach import attach

        plan, inputs = self.plan(seed), self.inputs(seed)
        base, base_retention = self.base(seed)
        torch.manual_seed(seed)  # PEFT draws its factors from the global generator
        attached = attach(arm, plan)
        if recipe is not None:
            attached.step = recipe_step(recipe, attached, plan, self.steps)
        if prepare is not None:
            prepare(attached, plan)
        pad = pad_token(inputs.checkpoint.load_tokenizer())
        device = next(attached.model.parameters()).device
        examples = inputs.training
        training, gradients = [], []
        for number in range(self.steps):
            rows = [int(row) for row in batch_at(number, n_train=len(examples), batch_size=self.batch, seed=seed)]
            for parameter in attached.trained:
                parameter.grad = None
            losses = forward_losses(attached.model, to_tensors(examples, rows, pad, device))
            loss = losses.nll.sum() / losses.count.sum()
            scale = loss_scale(number) if callable(loss_scale) else loss_scale
            (loss * scale).backward()
            training.append(float(loss.detach()))
            if not math.isfinite(training[-1]):
                break
            gradients.append(gradient_norm(attached.trained))
            try:
                said = attached.step(training[-1] * scale, number)
            except torch.linalg.LinAlgError:  # a solver met a matrix that has overflown
                training[-1] = math.inf
                break
            if watch is not None:
                watch(number + 1, attached, said)
        task, kept = math.inf, None
        if math.isfinite(training[-1]):
            attached.evaluating(True)
            task, kept = self.score(attached.model, seed)
        return ShortRun(
            arm=arm.key,
            seed=seed,
            base=base,
            loss=task if math.isfinite(task) else math.inf,
            base_retention=base_retention,
            retention=kept,
            training=tuple(training),
            gradients=tuple(gradients),
            changes=dict(attached.changes()) if with_changes and math.isfinite(task) else {},
            trained=sum(parameter.numel() for parameter in attached.trained),
        )


def recipe_step(recipe: Recipe, attached: Any, plan: Plan, steps: int) -> Callable[[float, int], None]:
    """The step of torch's AdamW by `recipe`, with the documented epsilon and decay of the matrix that a factor belongs to."""
    import torch

    groups = [
        {
            "params": parameters,
            "eps": _value(recipe.epsilon, plan, "adam_epsilon", name),
            "weight_decay": _value(recipe.decay, plan, "weight_decay", name),
        }
        for name, parameters in by_matrix(attached, plan).items()
    ]
    optimizer: Any = torch.optim.AdamW(groups, lr=recipe.rate, betas=recipe.betas)
    parameters = list(attached.trained)

    def step(loss: float, number: int) -> None:
        del loss
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * recipe.share(number, steps)
        if recipe.clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, recipe.clip)
        optimizer.step()

    return step


def by_matrix(attached: Any, plan: Plan) -> dict[str, list[Any]]:
    """The trained numbers of each targeted matrix, by the matrix's name; raises `InputError` where one belongs to none."""
    names = {target.module: target.name for target in plan.targets}
    found: dict[str, list[Any]] = {}
    for path, parameter in attached.model.named_parameters():
        if parameter.requires_grad:
            module = path.removeprefix("base_model.model.").partition(".lora_")[0]
            if module not in names:
                raise InputError(f"the trained tensor {path} belongs to no matrix of the plan: give a LoRA arm.")
            found.setdefault(names[module], []).append(parameter)
    return found


def _value(given: float | str, plan: Plan, key: str, name: str) -> float:
    return float(given) if not isinstance(given, str) else float(plan.derivation(key).documented_value[name])


def controller_of(attached: Any) -> Any:
    """The controller behind the step of one of geonb's own arms; raises `InputError` for a rival, which has none."""
    controller = getattr(attached.step, "__self__", None)
    if controller is None or not hasattr(controller, "matrices"):
        raise InputError("what was attached has no controller of geonb's: give an arm such as frank-wolfe or mass.")
    return controller


def gradient_norm(parameters: Iterable[Any]) -> float:
    """The Euclidean norm of all gradients together."""
    return math.sqrt(sum(float(p.grad.double().square().sum()) for p in parameters if p.grad is not None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Search(Record):
    """A search over rates: the best one, what each gave, and whether a worse rate was seen on both sides."""

    best: float
    losses: dict[str, float]
    interior: bool

    def summary(self) -> str:
        told = ", ".join(f"{rate} {loss:.3f}" for rate, loss in self.losses.items())
        return f"Search({told}: {self.best:g}{'' if self.interior else ', at the edge'})"


def search(rates: Sequence[float], run: Callable[[float], ShortRun]) -> Search:
    """The rate of the lowest held-out loss; judge it on other seeds than that of `run`."""
    losses = {rate: run(rate).loss for rate in sorted(rates)}
    best = min(losses, key=losses.__getitem__)
    if not math.isfinite(losses[best]):
        raise InputError("every rate of the search diverged: give smaller ones.")
    ends = (min(losses), max(losses))
    return Search(best=best, losses={f"{rate:g}": loss for rate, loss in losses.items()}, interior=best not in ends)


def gain_ratio(runs: Sequence[ShortRun], of: Sequence[ShortRun], *, null: float | None = 1.0) -> Measurement:
    """Gain over the gain of `of`, the mean over paired seeds with Student's interval."""
    ratios = [first.gain / second.gain for first, second in _paired(runs, of)]
    return over_seeds(ratios, unit="of the gain", operator="gain over gain, paired by seed", null=null)


def lost_share(
    runs: Sequence[ShortRun], than: Sequence[ShortRun], *, of: Sequence[ShortRun] | None = None
) -> Measurement:
    """(loss of `runs` - loss of `than`) / gain of `of` (by default of `than`), the mean over paired seeds; null 0."""
    reference = {run.seed: run.gain for run in of or than}
    shares = [(first.loss - second.loss) / reference[first.seed] for first, second in _paired(runs, than)]
    return over_seeds(shares, unit="of the gain", operator="difference over gain, paired by seed", null=0.0)


def _paired(runs: Sequence[ShortRun], others: Sequence[ShortRun]) -> list[tuple[ShortRun, ShortRun]]:
    first, second = ({run.seed: run for run in some} for some in (runs, others))
    if not first or first.keys() != second.keys():
        raise InputError(
            f"runs of the seeds {sorted(first)} and {sorted(second)} were given; allowed are the same seeds on both sides."
        )
    return [(first[seed], second[seed]) for seed in sorted(first)]
