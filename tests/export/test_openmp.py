"""How long OpenMP's threads spin: briefly, unless the user chose, and children get what was found."""

from __future__ import annotations

import os

import pytest

from ganexport import openmp


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openmp, "_found", {})
    # Set first, so that what a test leaves in the environment is taken back.
    monkeypatch.setenv(openmp.VARIABLE, "")
    monkeypatch.delenv(openmp.VARIABLE)
    monkeypatch.delenv(openmp.POLICY, raising=False)


def test_threads_spin_briefly_and_children_run_as_found() -> None:
    openmp.spin_briefly()
    openmp.spin_briefly()
    assert os.environ[openmp.VARIABLE] == openmp.SPINS
    assert openmp.VARIABLE not in openmp.environment_as_found()


def test_a_count_that_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(openmp.VARIABLE, "7")
    openmp.spin_briefly()
    assert os.environ[openmp.VARIABLE] == openmp.environment_as_found()[openmp.VARIABLE] == "7"


@pytest.mark.parametrize("policy", ["PASSIVE", "ACTIVE"])
def test_a_policy_that_the_user_chose_is_not_overridden(monkeypatch: pytest.MonkeyPatch, policy: str) -> None:
    monkeypatch.setenv(openmp.POLICY, policy)
    openmp.spin_briefly()
    assert openmp.VARIABLE not in os.environ
    assert openmp.environment_as_found()[openmp.POLICY] == policy
