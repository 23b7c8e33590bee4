"""Named arrays and their arithmetic: dtypes, shapes and the order of names are kept, identity is of the values."""

from __future__ import annotations

import hashlib
import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fl import parameters as P

FLOATS = ("float32", "float64")
WHOLE = ("int8", "int64", "uint8", "bool")


SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


def arrays(dtypes, shapes=SHAPES):
    """Arrays of any of the dtypes: 0-d, empty and larger ones; floats of moderate size."""

    def of(dtype):
        elements = st.floats(-1e3, 1e3, width=32) if np.dtype(dtype).kind == "f" else hnp.from_dtype(np.dtype(dtype))
        return hnp.arrays(dtype, shapes, elements=elements)

    return st.sampled_from(dtypes).flatmap(of)


def alike(number, dtypes=(*FLOATS, *WHOLE)):
    """``number`` sets of arrays with the same names, shapes and dtypes."""
    names = st.lists(st.text("abc.", min_size=1, max_size=5), unique=True, max_size=4)

    @st.composite
    def draw(draw_one):
        sets = [{} for _ in range(number)]
        for name in draw_one(names):
            like = draw_one(arrays(dtypes))
            for values in sets:
                values[name] = draw_one(arrays([like.dtype.name], st.just(like.shape)))
        return sets

    return draw()


def same_form(a, like):
    return list(a) == list(like) and all(
        isinstance(a[n], np.ndarray) and a[n].shape == like[n].shape and a[n].dtype == like[n].dtype for n in like
    )


@given(alike(2))
def test_arithmetic_keeps_names_in_order_shapes_and_dtypes(pair):
    a, b = pair
    for result in (P.add(a, b), P.subtract(a, b), P.scale(a, 0.5), P.zeros_like(a), P.copy(a)):
        assert same_form(result, a)
        assert not any(np.shares_memory(result[n], a[n]) for n in a)


@given(alike(2, WHOLE))
def test_a_difference_of_whole_numbers_and_booleans_leads_back_exactly(pair):
    a, b = pair
    back = P.add(a, P.subtract(b, a))
    assert all(np.array_equal(back[name], b[name]) for name in b)


@given(alike(2, FLOATS))
def test_a_difference_of_floats_leads_back(pair):
    a, b = pair
    back = P.add(a, P.subtract(b, a))
    assert all(np.allclose(back[name], b[name], rtol=0, atol=1e-3) for name in b)


def test_the_dtype_of_the_first_wins():
    wide, narrow = {"w": np.array([1.0, 2.0])}, {"w": np.array([0.5, 0.25], np.float32)}
    assert P.add(narrow, wide)["w"].dtype == np.float32
    assert P.subtract(wide, narrow)["w"].tolist() == [0.5, 1.75]


def test_scaling_rounds_counters_to_the_nearest_and_stays_in_float32():
    scaled = P.scale({"n": np.array([3, -5]), "w": np.ones(2, np.float32)}, 0.3)
    assert scaled["n"].tolist() == [1, -2]
    assert scaled["w"].tobytes() == (np.ones(2, np.float32) * np.float32(0.3)).tobytes()


def test_a_copy_is_whole_writable_and_its_own():
    original = {"w": np.arange(6.0).reshape(2, 3).T}
    original["w"].flags.writeable = False
    copied = P.copy(original)
    assert copied["w"].flags.c_contiguous and copied["w"].flags.writeable
    copied["w"][0, 0] = 9
    assert original["w"][0, 0] == 0


@given(alike(1, (*FLOATS, "int64")))
def test_the_norm_is_that_of_all_floats_in_one_vector(sets):
    (a,) = sets
    together = np.concatenate([np.zeros(1), *(v.astype(np.float64).ravel() for v in a.values() if v.dtype.kind == "f")])
    assert P.norm(a) == pytest.approx(np.linalg.norm(together), rel=1e-12)


def test_the_norm_does_not_lose_small_numbers_to_float32_nor_stumble_over_large_ones():
    many = {"w": np.full(10_000_000, 1e-3, np.float32)}
    assert P.norm(many) == pytest.approx(math.sqrt(1e7) * float(np.float32(1e-3)), rel=1e-9)
    assert P.norm({"w": np.array([1e200, 1e200])}) == math.inf
    assert P.norm({}) == 0.0


@given(alike(1))
def test_sizes(sets):
    (a,) = sets
    assert P.num_values(a) == sum(v.size for v in a.values())
    assert P.num_bytes(a) == sum(len(v.tobytes()) for v in a.values())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", FLOATS)
def test_what_is_not_finite_is_named(bad, dtype):
    sound = {"n": np.array(3), "a": np.zeros((2, 2), dtype)}
    assert P.not_finite(sound) is None
    assert P.not_finite({**sound, "b": np.array([0, bad], dtype), "c": np.array(bad, dtype)}) == "b"


# --- identity ---------------------------------------------------------------------------------------------------


def test_the_hash_is_over_name_dtype_shape_and_little_endian_bytes_in_name_order():
    digest = hashlib.sha256()
    digest.update(b"a\0<i8\0()\0" + struct.pack("<q", 5))
    digest.update(b"b\0<f4\0(2, 1)\0" + struct.pack("<2f", 1.5, -2.0))
    assert P.sha256({"b": np.array([[1.5], [-2.0]], np.float32), "a": np.array(5, np.int64)}) == digest.hexdigest()


@given(alike(1), st.randoms(use_true_random=False))
def test_the_hash_is_the_same_in_any_order_memory_layout_and_byte_order(sets, random):
    (a,) = sets
    names = list(a)
    random.shuffle(names)
    assert P.sha256({name: a[name] for name in names}) == P.sha256(a)
    assert P.sha256({name: np.asfortranarray(value) for name, value in a.items() if value.ndim}) == P.sha256(
        {name: value for name, value in a.items() if value.ndim}
    )
    assert P.sha256({name: value.astype(value.dtype.newbyteorder(">")) for name, value in a.items()}) == P.sha256(a)
    strided = {name: np.repeat(value, 2, axis=0)[::2] for name, value in a.items() if value.ndim}
    assert P.sha256(strided) == P.sha256({name: a[name] for name in strided})


def test_whatever_differs_changes_the_hash():
    versions = [
        {"w": np.zeros(2, np.float32)},
        {"v": np.zeros(2, np.float32)},
        {"w": np.zeros(2, np.float64)},
        {"w": np.zeros((2, 1), np.float32)},
        {"w": np.array([0, -0.0], np.float32)},
        {"w": np.zeros(2, np.float32), "v": np.zeros(0, np.float32)},
        {"w": np.zeros(2, np.float32), "v": np.zeros((0, 3), np.float32)},
        {"w": np.zeros(1, np.float32)},
        {"w": np.zeros((), np.float32)},
        {},
    ]
    assert len({P.sha256(a) for a in versions}) == len(versions)


# --- form -------------------------------------------------------------------------------------------------------

LIKE = {"w": np.zeros((2, 3), np.float32), "n": np.array(0)}


@pytest.mark.parametrize(
    "arrays, words",
    [
        ({"w": LIKE["w"]}, "array 'n' is missing"),
        ({**LIKE, "x": np.zeros(1)}, "array 'x' is not among those expected"),
        ({**LIKE, "w": np.zeros((3, 2), np.float32)}, "array 'w' has shape (3, 2), expected (2, 3)"),
        ({**LIKE, "n": np.zeros(1, np.int64)}, "array 'n' has shape (1,), expected ()"),
        ({**LIKE, "w": np.zeros((2, 3))}, "array 'w' has dtype float64, expected float32"),
        ({**LIKE, "w": np.zeros((2, 3), ">f4")}, "array 'w' has dtype >f4, expected float32"),
    ],
)
def test_a_mismatch_is_said_in_words(arrays, words):
    assert P.mismatch(arrays, LIKE) == words


@given(alike(2))
def test_alike_does_not_mismatch_in_any_order(pair):
    a, b = pair
    assert P.mismatch(dict(reversed(list(a.items()))), b) is None


@pytest.mark.parametrize(
    "value, like, expected",
    [
        ([0.4, 1.6, -1.6], np.zeros(1, np.int32), [0, 2, -2]),
        ([0.4, 0.6], np.zeros(1, bool), [False, True]),
        ([0.1], np.zeros(1, np.float32), [np.float32(0.1)]),
        (2.5, np.zeros(1, np.int64), 2),
    ],
)
def test_casting_rounds_to_the_nearest(value, like, expected):
    result = P.cast(np.asarray(value), like)
    assert isinstance(result, np.ndarray) and result.dtype == like.dtype
    assert result.tolist() == expected
