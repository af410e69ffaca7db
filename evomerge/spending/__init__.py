"""Spending evaluations well: stop candidates that cannot win, and repeat what is noisy.

Each policy is a strategy around a strategy. The inner one asks a candidate; the policy asks for it in rounds of items,
or several times, and tells the inner one a single result. Since a policy is as pure as any strategy, a study that uses
one resumes exactly and does not depend on the number of workers, with nothing added to runner or store.
"""

from evomerge.spending.choose import wrapped

__all__ = ["wrapped"]
