"""The types of every setting: what makes a mistyped key or value stop with a message before anything starts.

Values are in the YAML files beside this one, types and meanings here. A group whose choices differ in their settings
has a class a choice, named in the YAML file's defaults; ``model``, ``algorithm`` and ``strategy`` are open, because
their settings are the arguments of the function or class that ``_target_`` names, which checks them itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def setting(meaning: str) -> Any:
    """A setting and what it means, in one line for ``fl simulate --help``."""
    return field(metadata={"meaning": meaning})


@dataclass
class Dataset:
    """What every data set takes."""

    name: str = setting("which data set; follows from dataset=NAME")
    validation_fraction: float = setting("share of a client's examples for validation")
    test_fraction: float = setting("share of a client's examples for its own test")
    public_fraction: float = setting("share that version 0 is trained on with server.seeding=pretrained")
    held_out_fraction: float = setting("share for the server's test set, where the data set brings none")


@dataclass
class Text(Dataset):
    """Text, cut into windows."""

    sequence_length: int = setting("characters a window")


@dataclass
class Hospitals(Dataset):
    """The table of heart disease."""

    label: str | None = setting("null: disease or not; another column: that number is predicted")
    standardize: bool = setting("standardise columns by statistics merged over clients")
    missing: str = setting("what fills missing values: federated (merged medians) or client (its own)")


@dataclass
class Synthetic(Dataset):
    """FedProx's generator."""

    alpha: float = setting("how much the clients' models differ")
    beta: float = setting("how much the clients' inputs differ")
    clients: int = setting("clients to draw")
    dimension: int = setting("inputs of an example")
    classes: int = setting("classes")


@dataclass
class Arrays(Dataset):
    """Your own arrays in a file."""

    path: str | None = setting("the file to read")
    task: str = setting("auto, classification, regression or next_token")
    standardize: bool = setting("standardise columns by statistics merged over clients")
    missing: str = setting("what fills missing values: federated (merged medians) or client (its own)")


@dataclass
class Table(Arrays):
    """Your own table in a file."""

    label: str | None = setting("the column to predict")
    client: str | None = setting("the column that names the client")
    features: list[str] | None = setting("columns to predict from; null: all others")


@dataclass
class Hub(Table):
    """A data set of the Hugging Face Hub: ``path`` is its name there."""

    subset: str | None = setting("configuration of a data set that has several")


@dataclass
class Function(Dataset):
    """What a Python function of your own returns. ``_target_`` is another spelling of ``function``."""

    _target_: str | None = setting("package.module.function, or file.py:function")
    function: str | None = setting("package.module.function, or file.py:function")
    function_arguments: dict[str, Any] = setting("what the function is called with")
    task: str = setting("auto, classification, regression or next_token")
    standardize: bool = setting("standardise columns by statistics merged over clients")
    missing: str = setting("what fills missing values: federated (merged medians) or client (its own)")


@dataclass
class Partition:
    """What every partition takes."""

    name: str = setting("how examples are dealt to clients; follows from partition=NAME")


@dataclass
class Iid(Partition):
    """Equal random parts."""

    examples_per_client: int = setting("size of the overlapping views where there are more clients than examples")


@dataclass
class Shards(Partition):
    """McMahan's pathological split."""

    shards_per_client: int = setting("pieces of the examples sorted by label that a client gets")


@dataclass
class Proportions(Partition):
    """Shares drawn from a Dirichlet distribution: of each class, or of the whole."""

    alpha: float = setting("small: clients differ much; large: hardly")
    min_size: int = setting("examples that every client has at least")


@dataclass
class LabelSkew(Partition):
    """A fixed number of classes a client."""

    classes_per_client: int = setting("classes a client has")


@dataclass
class FeatureSkew(Partition):
    """Inputs that differ by client."""

    kind: str = setting("noise or rotation")
    noise: float = setting("deviation of the noisiest client: share of the range, or of a column's own deviation")
    degrees: float = setting("angle of the client that is turned furthest")


@dataclass
class ConceptShift(Partition):
    """Labels that mean something else to some clients."""

    base: str = setting("the partition whose labels are then changed")
    fraction: float = setting("share of the clients whose labels are changed")
    kind: str = setting("swap or permute")
    num_concepts: int = setting("different changes, shared by the changed clients in turn")


@dataclass
class Schedule:
    """The learning rate over rounds."""

    name: str = setting("constant, exponential, cosine or step")
    decay: float = setting("factor a round (exponential) or a step")
    step_rounds: int | None = setting("rounds a step lasts")
    minimum: float = setting("never below this share of client.learning_rate")
    warmup_rounds: int = setting("rounds over which the rate rises to its full value")


@dataclass
class Client:
    """How a device trains, and what it sends."""

    batch_size: int | None = setting("examples a step; null: all of a client's at once")
    local_epochs: int | None = setting("passes over a client's examples a round")
    local_steps: int | None = setting("steps a round, in place of local_epochs")
    learning_rate: float = setting("step size of the clients' optimiser")
    schedule: Schedule = setting("how the learning rate changes over rounds")
    optimizer: str = setting("sgd, or a class of torch.optim by name, such as AdamW")
    momentum: float = setting("momentum of sgd")
    nesterov: bool = setting("Nesterov's form of momentum")
    weight_decay: float = setting("weight decay")
    clip_norm: float | None = setting("gradients are scaled down to this norm; null: never")
    personal: bool = setting("every device keeps a model of its own, specialised from the newest version")
    personal_epochs: int | None = setting("passes to specialise it; null: local_epochs")
    sends: str = setting("fresh: trained from the newest version; personal: its own model's progress")
    max_update_norm: float | None = setting("updates of a larger norm are refused; null: none is")


@dataclass
class EarlyStopping:
    """When to end before ``num_rounds``."""

    metric: str | None = setting("the server's metric to watch: loss, accuracy ...; null: never stop early")
    patience: int = setting("evaluations without improvement before stopping")
    min_delta: float = setting("what counts as improvement")


@dataclass
class Server:
    """How the global model starts, is combined, kept and watched."""

    seeding: str = setting("version 0: pretrained, random, a version (RUN:ROUND, champion ...), a run or a file")
    seeding_epochs: int = setting("passes over the public examples")
    seeding_batch_size: int = setting("examples a step on the public examples")
    seeding_learning_rate: float = setting("step size on the public examples")
    weighting: str = setting("what an update weighs: examples or uniform")
    quorum: float = setting("share of the cohort that must answer for a round to count")
    round_retries: int = setting("fresh cohorts to try where the quorum is missed")
    deadline_seconds: float | None = setting("later answers are left out; null: wait for all")
    early_stopping: EarlyStopping = setting("when to end early")
    keep_versions: str = setting("versions whose weights are kept: all, last:K or every:K")
    selection_metric: str | None = setting("which metric chooses the best version; null: by the task")
    personal_evaluation: bool = setting("with client.personal: measure every device's own model at the end")
    tensorboard: bool = setting("write TensorBoard's files")
    terminal: bool = setting("show progress")


@dataclass
class Engine:
    """What runs the clients."""

    name: str = setting("auto, ray or inprocess; follows from engine=NAME")
    num_actors: int | None = setting("processes that train; null: one a core")
    unit_size: int = setting("clients that an actor handles in one go")
    address: str | None = setting("address of a running Ray cluster; null: start one here")
    task_threads: int = setting("threads a task may use")


@dataclass
class Simulate:
    """A simulation."""

    seed: int = setting("the root of all randomness")
    num_clients: int | None = setting("how many devices there are; null: 100, or as in the data (partition=natural)")
    cohort_size: int | None = setting("how many take part in a round; null: 10, or all if fewer")
    num_rounds: int = setting("rounds of training")
    run_dir: str | None = setting("the run's folder; null: a new one below outputs/runs")
    registry_dir: str | None = setting("where versions are kept; null: outputs/registry")
    evaluate_every: int | None = setting("rounds between evaluations on the server's test set; null: first and last")
    evaluate_clients_every: int | None = setting("rounds between evaluations on the cohort's clients; null: never")
    dataset: Dataset = setting("the data")
    partition: Partition = setting("who holds which examples")
    model: Any = setting("the model")
    algorithm: Any = setting("our algorithm, client and server half, with strategy=own")
    strategy: Any = setting("own, or one of Flower's strategies")
    client: Client = setting("what the devices do")
    server: Server = setting("what the centre does")
    engine: Engine = setting("what runs the clients")


# The name under which a YAML file asks for its class: /schema/GROUP@_here_: NAME.
CHOICES: dict[str, dict[str, type]] = {
    "dataset": {
        "images": Dataset,
        "text": Text,
        "hospitals": Hospitals,
        "synthetic": Synthetic,
        "arrays": Arrays,
        "table": Table,
        "hub": Hub,
        "function": Function,
    },
    "partition": {
        "iid": Iid,
        "shards": Shards,
        "proportions": Proportions,
        "label_skew": LabelSkew,
        "natural": Partition,
        "feature_skew": FeatureSkew,
        "concept_shift": ConceptShift,
    },
}
