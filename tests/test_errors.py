from __future__ import annotations

import pickle

import pytest

from hwprune import errors
from hwprune.errors import ArtifactError, HwpruneError, StorageError, UsageError, nearest


def test_a_message_says_what_where_got_allowed_and_what_to_do():
    error = HwpruneError("It broke.", where="a.json", got=3, allowed="1 or 2", do="run `hwprune profile`")
    assert str(error) == (
        "It broke.\n  where:   a.json\n  got:     3\n  allowed: 1 or 2\n  do:      run `hwprune profile`"
    )


def test_what_is_not_known_is_left_out():
    assert str(HwpruneError("It broke.")) == "It broke."
    assert str(HwpruneError("It broke.", got=0)) == "It broke.\n  got:     0"


def test_exit_codes_tell_usage_from_the_rest():
    assert UsageError("x").exit_code == 2
    kinds = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, HwpruneError)]
    assert len(kinds) >= 10
    assert {kind.exit_code for kind in kinds if kind is not UsageError} == {1}


def test_the_tree_at_the_top_of_the_module_is_true():
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, HwpruneError):
            assert kind.__name__ in str(errors.__doc__)
    assert issubclass(StorageError, ArtifactError)


def test_an_error_crosses_process_borders_whole():
    error = pickle.loads(pickle.dumps(StorageError("Full.", where="/x", got="28", do="free space")))
    assert isinstance(error, StorageError)
    assert str(error) == "Full.\n  where:   /x\n  got:     28\n  do:      free space"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("resnet5", "did you mean resnet56 or resnet20 or mobilenet?"),
        ("mobilnet", "did you mean mobilenet?"),
        ("zzz", "mobilenet, resnet20, resnet56"),
    ],
)
def test_near_names_are_suggested_and_all_names_when_none_is_near(name, text):
    assert nearest(name, ["resnet56", "resnet20", "mobilenet"]) == text
