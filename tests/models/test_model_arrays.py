"""Between torch and NumPy: nothing shared that should not be, nothing lost, nothing accepted that does not fit."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from torch import nn

from fl import parameters
from fl.errors import BadInput
from fl.models.arrays import load_parameters, parameters_of, to_inputs, to_targets, trainable_names
from fl.signature import Signature

IMAGES = Signature("classification", (1, 2, 3), "float32", 10, input_scale=1 / 255)


def normalised() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_round_trip_with_buffers():
    one, other = normalised(), normalised()
    one(torch.randn(8, 3))  # moves the running statistics and the counter
    assert parameters_of(one)["1.num_batches_tracked"] == 1
    load_parameters(other, parameters_of(one))
    assert parameters.sha256(parameters_of(other)) == parameters.sha256(parameters_of(one))


def test_copies_stay_and_views_follow():
    module = normalised()
    copies, views = parameters_of(module), parameters_of(module, views=True)
    with torch.no_grad():
        module[0].weight.fill_(9.0)
    assert (views["0.weight"] == 9.0).all()
    assert not (copies["0.weight"] == 9.0).any()
    copies["0.bias"][:] = 7.0
    assert not (module[0].bias == 7.0).any()


def test_copies_are_contiguous_however_the_module_lies_in_memory():
    module = nn.Conv2d(3, 4, 5).to(memory_format=torch.channels_last)
    assert parameters_of(module)["weight"].flags.c_contiguous
    assert np.array_equal(parameters_of(module)["weight"], module.weight.detach().numpy())


def test_loading_is_in_place_and_takes_read_only_arrays():
    module = normalised()
    address = module[0].weight.data_ptr()
    values = parameters.add(parameters_of(module), parameters_of(module))
    for value in values.values():
        value.flags.writeable = False
    load_parameters(module, values)
    assert module[0].weight.data_ptr() == address
    assert np.array_equal(module[0].weight.detach().numpy(), values["0.weight"])


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda p: p.pop("0.bias"), "model: got array '0.bias' is missing, allowed: the model that the parameters"),
        (lambda p: p.update(more=np.zeros(1)), "array 'more' is not among those expected"),
        (lambda p: p.update({"2.bias": np.zeros(3, np.float32)}), r"'2.bias' has shape \(3,\), expected \(2,\)"),
        (lambda p: p.update({"2.bias": np.zeros(2)}), "'2.bias' has dtype float64, expected float32"),
    ],
)
def test_parameters_that_do_not_fit_change_nothing(change, message):
    module = normalised()
    before = parameters.sha256(parameters_of(module))
    values = parameters.scale(parameters_of(module), 3.0)
    change(values)
    with pytest.raises(BadInput, match=message):
        load_parameters(module, values)
    assert parameters.sha256(parameters_of(module)) == before


def test_trainable_names_leave_out_buffers_frozen_and_shared_tensors():
    module = normalised()
    module[0].bias.requires_grad_(False)
    assert trainable_names(module) == ("0.weight", "1.weight", "1.bias", "2.weight", "2.bias")
    tied = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    tied[1].weight = tied[0].weight
    assert trainable_names(tied) == ("0.weight",)


@given(npst.arrays(np.uint8, st.tuples(st.integers(0, 4), st.just(2), st.just(3))))
def test_images_are_scaled_and_gain_a_channel(x):
    inputs = to_inputs(x, IMAGES)
    assert inputs.shape == (len(x), 1, 2, 3)
    assert inputs.dtype == torch.float32
    expected = x.astype(np.float32)[:, None] * np.float32(1 / 255)
    assert np.array_equal(inputs.numpy(), expected)


def test_inputs_never_share_memory_and_take_memory_maps(tmp_path):
    floats = Signature("classification", (2,), "float32", 2)
    path = tmp_path / "x.npy"
    np.save(path, np.ones((3, 2), np.float32))
    mapped = np.load(path, mmap_mode="r")
    for x in (np.ones((3, 2), np.float32), mapped, mapped[::2]):
        inputs = to_inputs(x, floats)
        inputs.mul_(5.0)
        assert (x == 1.0).all()
    y = np.load(path, mmap_mode="r")[:, 0]
    assert to_targets(y, floats).tolist() == [1, 1, 1]


def test_dtypes_follow_the_signature():
    tokens = Signature("next_token", (4,), "int64", 9)
    assert to_inputs(np.ones((2, 4), np.uint8), tokens).dtype == torch.int64
    assert to_targets(np.ones((2, 4), np.uint8), tokens).shape == (2, 4)
    for dtype in ("float32", "float64"):
        price = Signature("regression", (4,), dtype, 1)
        assert to_inputs(np.ones((2, 4), np.float64), price).dtype == getattr(torch, dtype)
        assert to_targets(np.ones((2, 1)), price).dtype == getattr(torch, dtype)
        assert to_targets(np.ones((2, 1)), price).shape == (2,)
    third = np.array([[1 / 3]])
    assert to_inputs(third, Signature("regression", (1,), "float64", 1)).numpy() == third


def test_examples_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="reshape"):
        to_inputs(np.zeros((2, 5)), IMAGES)
