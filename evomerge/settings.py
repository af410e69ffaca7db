"""What a study file says, section by section, as frozen values. `evomerge.config` reads the file into these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from evomerge.fitness import Splits


@dataclass(frozen=True)
class TokenSettings:
    """Which row of embeddings and head a token has.

    Attributes:
        source: the member (or ``base``) whose row it is; default: none, the row is all zeros.
        token: which token of the source, or the number of one of its rows; default: the token itself.
        force: models that have the token take that row as well, not only those that lack it.
    """

    source: str | None = None
    token: str | Annotated[int, Ge(0)] | None = None
    force: bool = False


@dataclass(frozen=True)
class PoolSettings:
    """The models to merge. Paths are relative to the study file.

    Attributes:
        members: a short name for each model, and its checkpoint folder (or one ``.safetensors`` file). It may also be
            on the Hugging Face hub, as ``hf:org/name`` or ``hf:org/name@revision``; the folder of a LoRA adapter, which
            lies over ``base``, or a ``.ternary`` file, a compressed task vector that does; or ``MODEL+ADAPTER``, an
            adapter over another model.
        base: their common ancestor, where adapters or a strategy need one.
        order: tensor-name patterns that decide the order of the parameter vector; default: natural order of names.
        groups: a name for each parameter group, and the patterns of its tensors; default: as ``grouping`` says.
        grouping: how tensors are divided into groups instead: ``whole`` (one group, ``all``), ``tensor``, ``layer``,
            ``blocks:K`` (K runs of layers), ``kind`` (attention, mlp, norm, embedding, head, other),
            ``kind_and_layer``, or ``importance:K`` (K runs of layers that have changed from the base about equally).
        layers: for a member (or ``base``), ranges of its layers such as ``["0:8", "4:12"]``, half-open: the model that
            consists of these layers, one after the other, takes its place.
        vocabulary: how models with other tokens go together: ``same`` refuses them; ``base``, the name of a member or
            a folder with a tokenizer gives all that vocabulary; ``union`` gives the base's and then all others' tokens.
            A token that a model lacks takes the base's row, or else the mean of those who have it.
        tokens: for single tokens, which row of embeddings and head they take instead: that of a ``source`` (a member or
            ``base``; default: none, the row is zeros), there that of a ``token`` or row number (default: the token
            itself); ``force`` gives it to models that have the token, too. The vocabulary gets tokens that it lacks.
        pad_vocabulary: the rows of embeddings and head are filled up to a multiple of this.
        chat_template: the merged models' chat template: a Jinja text, or ``auto``, the one that most models have;
            default: the base's, or else the first member's.
        exclude: patterns of tensors that are not merged but copied from the base, or else from the first member.
        statistics: for a member (or ``base``), what some operators need beside its weights: a number such as ``loss``
            or ``step``, or a ``.safetensors`` file such as ``fisher`` or ``activations``, by that name.
    """

    members: dict[str, str] = field(default_factory=dict)
    base: str | None = None
    order: tuple[str, ...] = ()
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    grouping: str = "whole"
    layers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    vocabulary: str = "same"
    tokens: dict[str, TokenSettings] = field(default_factory=dict)
    pad_vocabulary: Annotated[int, Gt(0)] = 1
    chat_template: str | None = None
    exclude: tuple[str, ...] = ()
    statistics: dict[str, dict[str, str | float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """A plugin by name (``m2n2`` or ``package.module:Name``) and its own settings, already validated."""

    name: str
    settings: Any


@dataclass(frozen=True)
class BudgetSettings:
    """When to stop.

    Attributes:
        evaluations: so many evaluations on the search split, the seeds' included.
    """

    evaluations: Annotated[int, Gt(0)]


@dataclass(frozen=True)
class EvaluationSettings:
    """How evaluations are spent.

    Attributes:
        order: the order in which items are asked for where a strategy has candidates scored on some of them only:
            ``natural`` (that of the split), ``random``, ``stratified`` (random, every kind of item spread evenly), or
            ``auto``, which is stratified where items come in kinds and else random.
        stop: whether candidates are scored on a few items first and stopped early: ``never``; ``race``, as soon as they
            are seen not to reach the best one; or ``halving``, where of a batch the better half goes on. Strategies
            that need whole scores, such as M2N2, cannot be stopped.
        first: items of the first round; every further round doubles them.
        confidence: in a race, the chance at least that a candidate as good as the best one is not dropped; with
            replicates, the confidence of the lower bounds that order leaders and finalists.
        estimator: what a candidate that a race dropped is told to the strategy with: ``paired``, the best one's score
            less their mean difference on the items seen; or ``irt``, which predicts the other items from the answers of
            the first candidates (the pool's members, where they are scored first).
        batch: so many candidates at most are halved together.
        replicates: for a fitness with noise: how often each candidate is scored; the strategy is told the mean.
        reevaluate: for a fitness with noise: so many leaders are scored once more every now and then.
        reevaluate_every: how many candidates lie between.
    """

    order: Literal["auto", "natural", "random", "stratified"] = "auto"
    stop: Literal["never", "race", "halving"] = "never"
    first: Annotated[int, Gt(0)] = 32
    confidence: Annotated[float, Gt(0.5), Lt(1)] = 0.95
    estimator: Literal["paired", "irt"] = "paired"
    batch: Annotated[int, Gt(1)] = 16
    replicates: Annotated[int, Gt(0)] = 1
    reevaluate: Annotated[int, Ge(0)] = 0
    reevaluate_every: Annotated[int, Gt(0)] = 32


@dataclass(frozen=True)
class MergeSettings:
    """How candidates are built. Both ways agree to rounding.

    Attributes:
        mode: ``table`` keeps every recipe as coefficients over the pool and streams the pool once per candidate;
            ``dense`` keeps recent candidates' whole float32 vectors in a cache, which mutation needs; ``auto`` is dense
            for pools that are small.
        cache_mb: size of that cache in MB, per worker.
    """

    mode: Literal["auto", "table", "dense"] = "auto"
    cache_mb: Annotated[int, Gt(0)] = 64


@dataclass(frozen=True)
class ExecutorSettings:
    """Where candidates are scored. Nothing here changes a study's results.

    Attributes:
        kind: ``inline`` scores in the driver's process, one at a time; ``ray`` on workers of their own; ``threads``
            waits for many answers at once, where a server scores the candidates.
        workers: how many Ray workers, or threads.
        threads: torch threads per worker, which also build large models.
        time_limit: seconds that one evaluation may take; default: no limit.
        ray_address: of a standing Ray cluster; default: a local Ray of its own, ended with the run.
        cpus: CPUs that Ray reserves for a worker.
        gpus: GPUs that Ray reserves for a worker.
    """

    kind: Literal["inline", "ray", "threads"] = "inline"
    workers: Annotated[int, Gt(0)] = 2
    threads: Annotated[int, Gt(0)] = 1
    time_limit: Annotated[float, Gt(0)] | None = None
    ray_address: str | None = None
    cpus: Annotated[float, Ge(0)] = 1.0
    gpus: Annotated[float, Ge(0)] = 0.0


@dataclass(frozen=True)
class StoreSettings:
    """Where the study is kept.

    Attributes:
        url: an SQLAlchemy address such as ``postgresql://user@host/database``, or a file; default: an SQLite file
            beside the study file, named like it.
        commit_every: seconds of turns that share one commit; a kill repeats at most these. 0 commits every turn.
        lease_seconds: how long a silent driver on another machine keeps the study to itself.
        snapshot_every: results between two snapshots of the strategy's state, from which a resume begins.
        keep_losses: keep the loss of every item, not only its score.
    """

    url: str | None = None
    commit_every: Annotated[float, Ge(0), Le(60)] = 0.1
    lease_seconds: Annotated[float, Gt(0)] = 60.0
    snapshot_every: Annotated[int, Gt(0)] = 1000
    keep_losses: bool = True


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """A whole study file.

    Attributes:
        study: the study's name in the database.
        pool: the models to merge; left out where the fitness brings its own.
        fitness: what scores a model, by name, and its settings.
        strategy: what decides which candidates to try, by name, and its settings.
        splits: which items are used for what.
        budget: when to stop.
        seed: the same seed gives the same study.
        objective: which of the fitness's objectives matters most; default: its first.
        window: how many candidates may be out at once. It is part of the search (parents come from an archive that is
            ``window - 1`` results old), so it never follows the number of workers.
        telling: results are told to the strategy in the order ``asked``, which gives the same study for any number of
            workers, or in the order of ``completion``, which is recorded and so resumes exactly too.
        finalists: how many of the best on the search split are scored on the selection split.
        evaluation: how evaluations are spent.
        merge: how candidates are built.
        executor: where they are scored.
        store: where the study is kept.
    """

    study: str
    pool: PoolSettings = field(default_factory=PoolSettings)
    fitness: Choice
    strategy: Choice
    splits: Splits
    budget: BudgetSettings
    seed: Annotated[int, Ge(0)] = 0
    objective: str | None = None
    window: Annotated[int, Gt(0)] = 8
    telling: Literal["asked", "completion"] = "asked"
    finalists: Annotated[int, Gt(0)] = 10
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    merge: MergeSettings = field(default_factory=MergeSettings)
    executor: ExecutorSettings = field(default_factory=ExecutorSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
