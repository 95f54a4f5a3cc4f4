"""Slots that are lost while the copy is under way, and tables without a primary key on a target that has nothing else."""
import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "integration"))

from test_reshard_brakes import cluster, lost_slot, running, without_a_primary_key  # noqa: E402, F401 (fixtures)

pytestmark = pytest.mark.slow


def test_lost_slot_while_copying(cluster, tmp_path):  # noqa: F811
    lost_slot(cluster, tmp_path, "copying")


def test_without_a_primary_key_on_an_empty_target(cluster, tmp_path):  # noqa: F811
    without_a_primary_key(cluster, tmp_path, False)
