"""The catalogue of errors, and how an error travels."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee import errors, narrower_errors
from rbee.errors import CATALOGUE, InternalError, InvalidRequestError, RbeeError
from rbee.narrower_errors import (
    AddressTakenError,
    HostKeyError,
    KeyRefusedError,
    LineFullError,
    NobodyListensError,
    NoNumbersError,
    PromptTooLongError,
    SilentAddressError,
    TooManyTokensError,
    UnknownFieldError,
    UnsupportedFieldError,
    UnsupportedModelError,
    WorkerDrainingError,
)
from rbee.wire.error_body import from_body, to_body

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
HOSTILE = [
    None,
    [],
    "error",
    17,
    {},
    {"error": None},
    {"error": "INTERNAL_ERROR"},
    {"error": []},
    {"error": {}},
    {"error": {"code": "INTERNAL_ERROR"}},
    {"error": {"message": "m"}},
    {"error": {"code": 1, "message": "m"}},
    {"error": {"code": ["INTERNAL_ERROR"], "message": "m"}},
    {"error": {"code": {}, "message": "m"}},
    {"error": {"code": "INTERNAL_ERROR", "message": {}}},
]


def _classes(base: type[RbeeError]) -> list[type[RbeeError]]:
    return [found for sub in base.__subclasses__() for found in (sub, *_classes(sub))]


ALL = [cls for cls in _classes(RbeeError) if cls.__module__ in (errors.__name__, narrower_errors.__name__)]
OURS = [cls for cls in ALL if "code" in vars(cls)]
NARROWER: dict[type[RbeeError], dict[str, object] | None] = {
    AddressTakenError: None,
    NobodyListensError: None,
    SilentAddressError: None,
    HostKeyError: {"reason": "host_key", "fingerprint": "SHA256:x"},
    WorkerDrainingError: {"worker_id": "w"},
    KeyRefusedError: {"host": "10.0.0.1:8500"},
    UnsupportedModelError: {"reason": "unsupported"},
    NoNumbersError: {"reason": "nan"},
    TooManyTokensError: {"field": "max_tokens", "context": 4096},
    LineFullError: None,
    PromptTooLongError: {"field": "prompt", "tokens": 5000, "context": 4096},
    UnknownFieldError: {"rule": "no such field"},
    UnsupportedFieldError: {"reason": "unsupported"},
}
"""Classes that share the code of their base class, and the details that tell them from it; None: never sent as such."""


def test_no_two_classes_share_a_code() -> None:
    codes = [cls.code for cls in OURS]
    assert sorted(codes) == sorted(set(codes))


def test_the_catalogue_knows_every_class() -> None:
    assert {cls.code: cls for cls in OURS} == CATALOGUE


def test_what_shares_a_code_is_known_here() -> None:
    assert set(ALL) - set(OURS) == set(NARROWER)


@pytest.mark.parametrize("cls", NARROWER)
def test_a_narrower_class_goes_over_the_wire_as_its_base_class_does(cls: type[RbeeError]) -> None:
    """A node that runs an older version knows the code, and nothing of the class."""
    details = NARROWER[cls] or {"attempts": ["attempt 1: timeout"]}
    sent, base = cls("what happened", **details), next(each for each in cls.__mro__ if each in OURS)
    assert (cls.code, cls.status) == (base.code, base.status)
    assert to_body(sent) == to_body(base("what happened", hint=sent.hint, **details))
    assert type(from_body(to_body(sent))) is (base if NARROWER[cls] is None else cls)
    assert type(from_body(to_body(base("what happened")))) is base


@pytest.mark.parametrize("details", [{"worker_id": None}, {"reason": ["host_key"]}, {"reason": {}}, {"host": 1}, {}])
@pytest.mark.parametrize("code", ["SHUTTING_DOWN", "SSH_FAILED", "INVALID_API_KEY", "INVALID_REQUEST"])
def test_details_of_any_shape_make_an_error_of_that_code(code: str, details: dict[str, object]) -> None:
    error = from_body({"error": {"code": code, "message": "m", "details": details}})
    assert error is not None
    assert (error.code, error.details) == (code, {}), "what has another type than all of ours have is left out"


@pytest.mark.parametrize(
    "details",
    [{"attempts": ["attempt 1: timeout"], "url": "http://x:1"}, {"reason": "auth"}, {"new": [1], "worker_id": "w"}],
)
def test_details_of_the_right_types_stay(details: dict[str, object]) -> None:
    error = from_body({"error": {"code": "SSH_FAILED", "message": "m", "details": details}})
    assert error is not None
    assert error.details == details


@pytest.mark.parametrize("message", ["", " ", "\n"])
def test_an_error_that_says_nothing_is_known_by_its_code(message: str) -> None:
    error = from_body({"error": {"code": "DOWNLOAD_FAILED", "message": message}})
    assert error is not None
    assert error.message == "DOWNLOAD_FAILED"


@pytest.mark.parametrize("context", [None, "4096", 0, -1, True, 4096.5, [4096], 10**400])
def test_a_context_of_any_shape_makes_an_error_that_can_be_read(context: object) -> None:
    details = {"field": "max_tokens", "context": context}
    error = from_body({"error": {"code": "INVALID_REQUEST", "message": "m", "details": details}})
    assert isinstance(error, InvalidRequestError)
    assert not isinstance(error, TooManyTokensError) or error.most == context


def test_a_host_key_that_is_new_can_be_accepted_and_a_changed_one_cannot() -> None:
    assert HostKeyError("m", fingerprint="SHA256:x").unknown_fingerprint == "SHA256:x"
    assert HostKeyError("m", fingerprint="SHA256:x", known=["SHA256:y"]).unknown_fingerprint is None
    assert HostKeyError("m", fingerprint=7).unknown_fingerprint is None
    assert HostKeyError("m").unknown_fingerprint is None


@pytest.mark.parametrize("cls", OURS)
def test_a_class_has_a_code_a_status_and_an_exit_code(cls: type[RbeeError]) -> None:
    assert cls.code == cls.code.upper()
    assert cls.code.replace("_", "").isalpha()
    assert 400 <= cls.status < 600
    assert 1 <= cls.exit_code < 256


@pytest.mark.parametrize("cls", OURS)
def test_an_error_survives_the_journey(cls: type[RbeeError]) -> None:
    sent = cls("what happened", hint="what to do", required=6000, available=[1, None])
    got = from_body(json.loads(json.dumps(to_body(sent, "an id"))))
    assert type(got) is cls
    assert (got.message, got.hint, got.details, got.correlation_id) == (
        "what happened",
        "what to do",
        {"required": 6000, "available": [1, None]},
        "an id",
    )
    assert str(got) == "what happened"


@pytest.mark.parametrize("cls", OURS)
def test_a_class_gives_its_advice_where_nothing_better_is_known(cls: type[RbeeError]) -> None:
    sent = cls("what happened")
    assert sent.hint == cls.advice
    got = from_body(to_body(sent))
    assert got is not None
    assert got.hint == cls.advice


def test_an_error_has_exactly_the_documented_fields() -> None:
    body = to_body(errors.OutOfMemoryError("m", required=2, available=1), "c")
    assert body == {
        "error": {
            "code": "VRAM_EXHAUSTED",
            "message": "m",
            "details": {"required": 2, "available": 1},
            "hint": errors.OutOfMemoryError.advice,
            "correlation_id": "c",
        }
    }


def test_without_hint_and_correlation_id_their_fields_are_missing() -> None:
    assert to_body(InternalError("m")) == {"error": {"code": "INTERNAL_ERROR", "message": "m", "details": {}}}


def test_a_busy_worker_names_its_slots_beside_the_message() -> None:
    error = to_body(errors.AllSlotsBusyError("m", slots_total=1, slots_busy=1))["error"]
    assert (error["slots_total"], error["slots_busy"]) == (1, 1)
    got = from_body({"error": error})
    assert got is not None
    assert got.details == {"slots_total": 1, "slots_busy": 1}


def test_the_callers_correlation_id_wins_over_the_errors() -> None:
    error = InternalError("m")
    error.correlation_id = "old"
    assert to_body(error, "new")["error"]["correlation_id"] == "new"
    assert to_body(error)["error"]["correlation_id"] == "old"


@pytest.mark.parametrize("body", HOSTILE)
def test_what_is_no_error_object_is_none(body: object) -> None:
    assert from_body(body) is None


def test_an_unknown_code_is_an_internal_error() -> None:
    got = from_body({"error": {"code": "FROM_THE_FUTURE", "message": "m"}})
    assert type(got) is InternalError


def test_parts_of_the_wrong_type_are_left_out() -> None:
    got = from_body({"error": {"code": "CANCELLED", "message": "m", "details": 3, "hint": {}, "correlation_id": []}})
    assert got is not None
    assert (got.details, got.hint, got.correlation_id) == ({}, None, None)


@given(JSON | st.fixed_dictionaries({"error": st.dictionaries(st.sampled_from(["code", "message", "details"]), JSON)}))
def test_no_body_makes_it_fail(body: object) -> None:
    got = from_body(body)
    assert got is None or isinstance(got, RbeeError)


def test_two_errors_do_not_share_their_details() -> None:
    one, other = InternalError("m"), InternalError("m")
    one.details["x"] = 1
    assert other.details == {}
