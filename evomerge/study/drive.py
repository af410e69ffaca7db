"""Begin a study, or go on with one: the driver's side of strategy, store, executor and runner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from evomerge import config, lineage
from evomerge.blackbox import RemotePool
from evomerge.config import StudyFile
from evomerge.errors import EvomergeError, LeaseError, ResumeError, StoreUnavailableError
from evomerge.evaluator import EvaluatorFactory
from evomerge.executor.port import Ancestry, Executor, OnEvent
from evomerge.runner import Outcome, Plan, Progress, Runner
from evomerge.settings import StudySettings
from evomerge.store.port import Store, StudyRecord, StudyStore
from evomerge.study import record as records
from evomerge.study.record import Given
from evomerge.study.setup import Setup, prepare


@dataclass(frozen=True)
class Watch:
    """How a run is watched and ended from outside."""

    stop: Callable[[], bool] = lambda: False
    on_progress: Callable[[Progress], None] | None = None


def create(file: StudyFile, *, name: str | None = None, budget: int | None = None) -> Setup:
    """Check a study file and all that it names. Nothing is written; give the result to `begin`.

    Raises:
        EvomergeError: whatever is wrong with it.
    """
    given = Given(budget)
    settings = records.with_budget(file.settings, given)
    if name is not None:
        settings = replace(settings, study=name)
    return prepare(settings, file.root, file.text, given)


def begin(setup: Setup, store: Store, watch: Watch | None = None) -> Outcome:
    """Put the study into the database and run it.

    Raises:
        StudyExistsError: the name is taken.
        EvomergeError: what ended the run; everything saved so far is safe.
    """
    store.create(setup.record)
    study = store.open(setup.record.name, write=True)
    try:
        return drive(study, setup, watch or Watch())
    finally:
        study.release()


def resume(
    store: Store,
    name: str,
    file: StudyFile | None = None,
    *,
    budget: int | None = None,
    allow_changed: bool = False,
    steal: bool = False,
    beside: Path | None = None,
    watch: Watch | None = None,
) -> Outcome:
    """Go on with a study, exactly as if it had never stopped.

    Args:
        store: the database.
        name: of the study in it.
        file: the study file to compare with; without it the study goes on as it is stored.
        budget: evaluations in all from now on.
        allow_changed: go on although versions, executor, store, finalists or the budget changed.
        steal: take the study from another driver that is still alive.
        beside: the database's folder, used without a file if the study's own folder is gone.
        watch: progress and stopping.

    Raises:
        ResumeError: something changed; the message lists it.
        LeaseError: another driver holds the study.
        EvomergeError: what ended the run; everything saved so far is safe.
    """
    study = store.open(name, write=True, steal=steal)
    try:
        setup = again(study.record, file, budget, beside)
        differences = records.compare(study.record, setup.record)
        asked_for = {"budget.evaluations"} if budget is not None else set()
        records.refuse(tuple(one for one in differences if one.key not in asked_for), allow_changed)
        items = setup.problem.items or 1
        asked, evaluations = study.items_asked(items), setup.settings.budget.evaluations
        if evaluations * items < asked:
            already = f"the study already asked for {asked / items:.10g} evaluations"
            raise ResumeError(f"{already}; give a budget of at least that many")
        if differences or study.record != setup.record:
            study.amend(setup.record)
        for one in differences:
            study.add_event("warning", "changed", str(one))
        return drive(study, setup, watch or Watch())
    finally:
        study.release()


def again(old: StudyRecord, file: StudyFile | None, budget: int | None, beside: Path | None = None) -> Setup:
    """The stored study prepared anew, from its file if there is one and else from what is stored.

    Raises:
        EvomergeError: whatever is wrong with it now.
    """
    before = records.given_of(old)
    given = Given(budget if budget is not None else before.budget)
    if file is None:
        settings, root, text = config.stored(old.settings), records.folder_of(old, beside), old.config
    else:
        settings, root, text = replace(file.settings, study=old.name), file.root, file.text
    return prepare(records.with_budget(settings, given), root, text, given)


def drive(study: StudyStore, setup: Setup, watch: Watch) -> Outcome:
    """Run an opened study to its end or to a stop.

    Raises:
        EvomergeError: what ended the run; it is noted in the study, which can be resumed.
    """
    settings = setup.settings
    plan = Plan(
        objective=setup.problem.objectives[0],
        budget=settings.budget.evaluations,
        window=settings.window,
        telling=settings.telling,
        finalists=settings.finalists,
        splits=setup.splits,
        snapshot_every=settings.store.snapshot_every,
        items=setup.problem.items,
    )
    strategy = records.strategy_of(settings, setup.problem)
    try:
        with executor_of(settings, factory_of(setup), ancestry_of(study), study.add_event) as executor:
            return Runner(strategy, study, executor, plan, stop=watch.stop, on_progress=watch.on_progress).run()
    except (StoreUnavailableError, LeaseError):
        raise  # nothing more can be written
    except EvomergeError as error:
        study.add_event("error", "stopped", str(error))
        study.set_status("stopped")
        raise
    except KeyboardInterrupt:
        study.set_status("paused")
        raise


def factory_of(setup: Setup) -> EvaluatorFactory:
    """What makes the study's evaluator on a worker."""
    settings = setup.settings
    return EvaluatorFactory(
        root=setup.root,
        pool=setup.settings.pool if isinstance(setup.pool, RemotePool) else setup.pool.settings,
        merge=settings.merge,
        fitness=settings.fitness,
        splits=settings.splits,
        order=settings.evaluation.order,
        seed=settings.seed,
        threads=settings.executor.threads,
    )


def executor_of(settings: StudySettings, factory: EvaluatorFactory, ancestry: Ancestry, on_event: OnEvent) -> Executor:
    """The executor that the settings name.

    Raises:
        ExecutorError: it cannot be started.
    """
    chosen = settings.executor
    if chosen.kind == "inline":
        from evomerge.executor.inline import InlineExecutor

        return InlineExecutor(factory, ancestry, time_limit=chosen.time_limit, on_event=on_event)
    if chosen.kind == "threads":
        from evomerge.executor.threads import ThreadExecutor

        return ThreadExecutor(
            factory, ancestry, workers=chosen.workers, time_limit=chosen.time_limit, on_event=on_event
        )
    from evomerge.executor.ray import RayExecutor

    return RayExecutor(
        factory,
        ancestry,
        workers=chosen.workers,
        threads=chosen.threads,
        cpus=chosen.cpus,
        gpus=chosen.gpus,
        address=chosen.ray_address,
        time_limit=chosen.time_limit,
        on_event=on_event,
    )


def ancestry_of(study: StudyStore) -> Ancestry:
    """Looks up the ancestors of recipes in the study, oldest first."""
    return lambda recipe, cached: lineage.ancestry(recipe, cached, study.recipes)
