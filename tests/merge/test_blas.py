from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from evomerge.merge.blas import one_thread


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.mark.parametrize("threads", [1, 2])
def test_products_do_not_depend_on_the_threads_outside(threads: int) -> None:
    matrix = np.random.default_rng(0).standard_normal((300, 300))
    with one_thread():
        alone = matrix @ matrix, np.linalg.svd(matrix)[1]
    with threadpool_limits(threads), one_thread():
        found = matrix @ matrix, np.linalg.svd(matrix)[1]
    assert [array.tobytes() for array in found] == [array.tobytes() for array in alone]


def test_what_was_allowed_before_is_allowed_again() -> None:
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        with one_thread(), one_thread():
            assert blas_threads() == {1}
        assert blas_threads() == before


def test_any_thread_may_come_after_another() -> None:
    """Of OpenBLAS threadpoolctl would heed the first thread only."""

    def within() -> set[int]:
        with one_thread():
            return blas_threads()

    with threadpool_limits(2, user_api="blas"), ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        assert [one.submit(within).result() for one in (first, second, first)] == [{1}] * 3
        assert within() == {1}
        assert blas_threads() == {2}


def test_the_last_to_leave_lifts_the_limit() -> None:
    """Two threads whose stays overlap: neither frees the other's."""
    both_in, one_out = Barrier(2), Barrier(2)

    def first() -> None:
        with one_thread():
            both_in.wait()
        one_out.wait()

    def second() -> set[int]:
        with one_thread():
            both_in.wait()
            one_out.wait()
            return blas_threads()

    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        with ThreadPoolExecutor(2) as pool:
            early, late = pool.submit(first), pool.submit(second)
            early.result()
            assert late.result() == {1}
        assert blas_threads() == before
