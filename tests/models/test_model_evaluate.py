"""A model asked about many examples: the answer of plain torch, the same bits, and nothing left changed."""

import numpy as np
import pytest
import torch
from torch import nn

from fl import metrics
from fl.models import mlp
from fl.models.evaluate import evaluate, evaluating, one_thread, predict
from fl.signature import Signature

IMAGES = Signature("classification", (1, 4, 4), "float32", 3, input_scale=1 / 255)


@pytest.fixture
def examples():
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (107, 4, 4), dtype=np.uint8), generator.integers(0, 3, 107)


@pytest.fixture
def module():
    torch.manual_seed(0)
    return mlp.build(IMAGES, hidden=(6,), dropout=0.5)


def test_evaluate_is_plain_torch_in_batches(module, examples):
    x, y = examples
    module.eval()
    with torch.no_grad():
        outputs = module(torch.tensor(x / np.float32(255)).reshape(-1, 1, 4, 4))
    module.train()
    found = metrics.values(evaluate(module, x, y, IMAGES, batch_size=10))
    assert found["loss"] == pytest.approx(nn.functional.cross_entropy(outputs, torch.tensor(y)).item(), rel=1e-6)
    assert found["accuracy"] == pytest.approx((outputs.argmax(1).numpy() == y).mean())
    assert np.allclose(predict(module, x, IMAGES, batch_size=10), outputs.numpy(), atol=1e-6)


def test_the_bits_do_not_depend_on_the_number_of_threads():
    wide = Signature("classification", (3, 16, 16), "float32", 3)
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(300, 3, 16, 16)).astype(np.float32), generator.integers(0, 3, 300)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 14 * 14, 3))
    threads = torch.get_num_threads()
    found = []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            found.append((evaluate(module, x, y, wide), predict(module, x, wide).tobytes()))
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1]


def test_every_part_gets_its_own_mode_back_also_after_an_error(module):
    module[3].eval()  # a user may freeze one layer
    before = [part.training for part in module.modules()]

    def ask() -> None:
        with evaluating(module):
            assert not any(part.training for part in module.modules())
            assert not torch.is_grad_enabled()
            raise KeyError

    with pytest.raises(KeyError):
        ask()
    assert [part.training for part in module.modules()] == before
    assert torch.is_grad_enabled()


def test_no_examples_no_statistics(module):
    assert evaluate(module, np.zeros((0, 4, 4), np.uint8), np.zeros(0, np.int64), IMAGES) == {}


def test_one_thread_inside():
    with one_thread():
        assert torch.get_num_threads() == 1
