"""Every partitioner keeps its promises on any labels: disjoint, complete, pure, and skewed the way its name says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl.data.partition import NEEDS, PARTITIONERS, deciles, partition
from fl.data.partition.assignment import Assignment, View, draw
from fl.data.partition.concept_shift import permute, swap
from fl.data.partition.feature_skew import add_noise, rotate
from fl.errors import BadInput
from fl.seeds import generator

DISJOINT = sorted(set(PARTITIONERS) - {"natural"})


def run(name, labels, num_clients, seed=0, client=None, task="classification", **options):
    return partition(
        name, labels=labels, task=task, client=client, num_clients=num_clients, seed=seed, options=options
    )  # fmt: skip


def labels_of(assignment, labels):
    return [labels[assignment.rows(c)] for c in range(assignment.num_clients)]


@st.composite
def problems(draw):
    """Labels of at least 40 rows, up to 6 classes, and few enough clients for every partitioner."""
    size, classes = draw(st.integers(40, 300)), draw(st.integers(2, 6))
    seed, skew = draw(st.integers(0, 10**6)), draw(st.sampled_from([0.0, 2.0]))
    share = np.arange(1, classes + 1) ** -skew
    labels = generator(seed, purpose="labels").choice(classes, size=size, p=share / share.sum())
    labels[:classes] = np.arange(classes)
    return labels, draw(st.integers(classes, 10)), draw(st.integers(0, 2**40))


@pytest.mark.parametrize("name", DISJOINT)
@given(problem=problems())
@settings(max_examples=25, deadline=None)
def test_disjoint_complete_nobody_empty_and_pure(name, problem):
    labels, num_clients, seed = problem
    options = {"min_size": 2} if name in ("dirichlet", "quantity_skew") else {}
    try:
        made = run(name, labels, num_clients, seed, **options)
    except BadInput as refused:
        # A class with fewer examples than owners may leave a client without any: said, not hidden.
        assert name == "label_skew"
        assert "without examples" in str(refused)  # noqa: PT017
        return
    assert isinstance(made, Assignment)
    assert sorted(made.order.tolist()) == list(range(len(labels)))
    assert made.num_clients == num_clients
    assert made.sizes.min() >= 1
    again = run(name, labels, num_clients, seed, **options)
    assert np.array_equal(made.order, again.order)
    assert np.array_equal(made.offsets, again.offsets)


@pytest.mark.parametrize("name", DISJOINT)
def test_another_seed_is_another_partition(name):
    labels = np.arange(400) % 10
    one, other = run(name, labels, 10, 1), run(name, labels, 10, 2)
    assert not np.array_equal(one.order, other.order)


@given(problem=problems(), alpha=st.sampled_from([1e-300, 1e-6, 0.01, 0.5, 1e3]), min_size=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_dirichlet_and_quantity_skew_end_and_hold_the_minimum(problem, alpha, min_size):
    labels, num_clients, seed = problem
    for name in ("dirichlet", "quantity_skew"):
        made = run(name, labels, num_clients, seed, alpha=alpha, min_size=min_size)
        assert made.sizes.min() >= min_size
        assert sorted(made.order.tolist()) == list(range(len(labels)))


def test_dirichlet_gets_milder_with_alpha():
    labels = np.arange(5000) % 10

    def largest_share(alpha):
        parts = labels_of(run("dirichlet", labels, 10, alpha=alpha), labels)
        return np.mean([np.bincount(part, minlength=10).max() / len(part) for part in parts])

    assert largest_share(0.05) > 0.5 > 0.2 > largest_share(100)


@given(problem=problems(), shards_per_client=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_shards_are_pieces_of_the_sorted_labels(problem, shards_per_client):
    labels, num_clients, seed = problem
    made = run("shards", labels, num_clients, seed, shards_per_client=shards_per_client)
    parts = labels_of(made, labels)
    # Each boundary between two labels lies inside one shard at most.
    mixed = sum(len(np.unique(part)) for part in parts)
    assert mixed <= num_clients * shards_per_client + len(np.unique(labels)) - 1
    least = len(labels) // (num_clients * shards_per_client)
    assert all(least * shards_per_client <= len(p) <= (least + 1) * shards_per_client for p in parts)


def test_shards_on_balanced_classes_give_two_labels_at_most():
    labels = np.repeat(np.arange(10), 600)
    parts = labels_of(run("shards", labels, 100), labels)
    assert max(len(np.unique(p)) for p in parts) == 2


@given(problem=problems(), k=st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_label_skew_gives_k_classes_at_most(problem, k):
    labels, num_clients, seed = problem
    k = min(k, len(np.unique(labels)))
    try:
        made = run("label_skew", labels, num_clients, seed, classes_per_client=k)
    except BadInput:
        return
    assert all(len(np.unique(p)) <= k for p in labels_of(made, labels))


def test_label_skew_gives_exactly_k_where_there_are_enough():
    labels = np.arange(3000) % 10
    parts = labels_of(run("label_skew", labels, 30, classes_per_client=3), labels)
    assert {len(np.unique(p)) for p in parts} == {3}
    # 300 examples a class, nine owners each: 33 or 34 of each of three classes.
    assert {len(p) for p in parts} <= set(range(99, 103))


def test_natural_follows_the_column():
    client = np.array([2, 0, 1, 2, 0])
    made = run("natural", np.zeros(5, int), 3, client=client)
    assert [sorted(made.rows(c).tolist()) for c in range(3)] == [[1, 4], [2], [0, 3]]
    with pytest.raises(BadInput, match=r"partition: got natural, for data that name no client, allowed: iid"):
        run("natural", np.zeros(5, int), 3)


def test_iid_with_more_clients_than_data_is_a_view_that_costs_nothing():
    view = run("iid", np.arange(100) % 10, 1_000_000, examples_per_client=7)
    assert view == View(100, 7, 1_000_000, 0)
    one, other = draw(0, 17, "train", 100, 7), draw(0, 18, "train", 100, 7)
    assert len(set(one.tolist())) == 7
    assert np.array_equal(one, draw(0, 17, "train", 100, 7))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("name", sorted(set(DISJOINT) - {"iid"}))
def test_disjoint_partitioners_refuse_more_clients_than_data(name):
    with pytest.raises(BadInput, match=r"num_clients: got 50, allowed: at most"):
        run(name, np.arange(40) % 4, 50)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("dirichlet", {"alpha": 0}, r"partition\.alpha: got 0, allowed: a number above 0"),
        ("dirichlet", {"alpha": float("nan")}, r"partition\.alpha: got nan"),
        ("dirichlet", {"min_size": 0}, r"partition\.min_size: got 0"),
        ("dirichlet", {"min_size": 90}, r"num_clients: got 4, allowed: at most 1 clients for 100 .* 90 or more each"),
        ("dirichlet", {"beta": 1}, r"partition\.beta: got 1, allowed: alpha, min_size"),
        ("natural", {"alpha": 1}, r"partition\.alpha: got 1, allowed: no options for natural"),
        ("shards", {"shards_per_client": 0}, r"partition\.shards_per_client: got 0"),
        ("label_skew", {"classes_per_client": 11}, r"partition\.classes_per_client: got 11, allowed: 1 to 10"),
        ("label_skew", {"classes_per_client": 2}, r"got 2, allowed: at least 3 for 4 clients"),
        ("iid", {"examples_per_client": 0}, r"partition\.examples_per_client: got 0"),
        ("feature_skew", {"kind": "blur"}, r"partition\.kind: got blur, allowed: noise, rotation"),
        ("feature_skew", {"noise": -1}, r"partition\.noise: got -1"),
        ("feature_skew", {"degrees": 200}, r"partition\.degrees: got 200"),
        ("concept_shift", {"fraction": 2}, r"partition\.fraction: got 2"),
        ("concept_shift", {"kind": "mirror"}, r"partition\.kind: got mirror, allowed: swap, permute"),
        ("concept_shift", {"num_concepts": 0}, r"partition\.num_concepts: got 0"),
        ("concept_shift", {"base": "natural"}, r"partition\.base: got natural, allowed: iid, dirichlet"),
        ("zipf", {}, r"partition: got zipf, allowed: iid, dirichlet"),
    ],
)
def test_bad_options_are_named(name, options, message):
    with pytest.raises(BadInput, match=message):
        run(name, np.arange(100) % 10, 4, **options)


def test_an_empty_partition_names_the_client():
    with pytest.raises(BadInput, match=r"natural leaves client 1 of 3 without examples"):
        run("natural", np.zeros(4, int), 3, client=np.array([0, 0, 2, 2]))


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_tokens_have_no_label_to_go_by(name):
    with pytest.raises(
        BadInput, match=rf"partition: got {name} for the task next_token, allowed: iid, quantity_skew, nat"
    ):
        run(name, np.zeros((50, 8), int), 4, task="next_token")


def test_numbers_are_partitioned_by_tenths():
    y = generator(0, purpose="y").random(1000)
    assert np.bincount(deciles(y)).tolist() == [100] * 10
    made = run("shards", y, 10, task="regression")
    assert max(len(np.unique(deciles(y)[made.rows(c)])) for c in range(10)) <= 2
    with pytest.raises(BadInput, match="concept_shift for the task regression"):
        run("concept_shift", y, 10, task="regression")


def test_feature_noise_grows_with_the_client_and_keeps_gaps():
    x = generator(0, purpose="x").normal(size=(4000, 3)) * [1, 10, 100]
    x[0, 0] = np.nan
    for client, level in ((0, 0.0), (5, 0.25), (10, 0.5)):
        noisy, _ = add_noise(x, np.zeros(4000), client, num_clients=11, seed=0, most=0.5)
        assert np.isnan(noisy[0, 0])
        assert np.allclose(np.nanstd(noisy - x, axis=0) / np.nanstd(x, axis=0), level, atol=0.02)
    image = np.full((50, 8, 8), 128, np.uint8)
    noisy, _ = add_noise(image, np.zeros(50), 3, num_clients=4, seed=0, most=0.1)
    assert noisy.dtype == np.uint8
    assert np.std(noisy.astype(float)) == pytest.approx(25.5, rel=0.05)


def test_rotation_turns_images_as_numpy_does():
    image = generator(0, purpose="x").integers(0, 256, (5, 9, 9)).astype(np.uint8)
    y = np.zeros(5)
    for client, quarter_turns in ((0, 1), (1, 0), (2, -1)):
        turned, _ = rotate(image, y, client, num_clients=3, seed=0, most=90)
        assert np.array_equal(turned, np.rot90(image, quarter_turns, axes=(1, 2)))
    with pytest.raises(BadInput, match="these inputs are not images"):
        rotate(np.zeros((5, 4)), y, 0, num_clients=3, seed=0, most=90)


def test_concept_shift_relabels_the_fraction_and_no_more():
    labels = np.arange(1000) % 10
    made = run("concept_shift", labels, 20, fraction=0.25, kind="swap", base="shards")
    every = np.arange(10)
    changed = [c for c in range(20) if not np.array_equal(made.transform(None, every, c)[1], every)]
    assert len(changed) == 5
    assert {tuple(made.transform(None, every, c)[1]) for c in changed} == {
        tuple(made.transform(None, every, changed[0])[1])
    }
    groups = run("concept_shift", labels, 20, fraction=0.5, kind="permute", num_concepts=2)
    seen = [tuple(groups.transform(None, every, c)[1]) for c in range(20)]
    assert sorted(seen.count(s) for s in set(seen)) == [5, 5, 10]


@given(num_classes=st.integers(2, 30), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_swaps_and_permutations_are_what_they_say(num_classes, seed):
    swapped = swap(num_classes, generator(seed, purpose="c"))
    permuted = permute(num_classes, generator(seed, purpose="c"))
    assert (swapped != np.arange(num_classes)).sum() == 2
    assert (permuted != np.arange(num_classes)).all()
    for mapping in (swapped, permuted):
        assert sorted(mapping.tolist()) == list(range(num_classes))
