"""The types of every setting: what makes a mistyped key or value stop with a message before anything starts.

Values are in the YAML files beside this one, types and meanings here. A group whose choices differ in their settings
has a class a choice, named in the YAML file's defaults; ``model``, ``algorithm`` and ``strategy`` are open, because
their settings are the arguments of the function or class that ``_target_`` names, which checks them itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any


@dataclass
class Dataset:
    """What every data set takes."""

    name: Annotated[str, "which data set; follows from dataset=NAME"]
    validation_fraction: Annotated[float, "share of a client's examples for validation"]
    test_fraction: Annotated[float, "share of a client's examples for its own test"]
    split: Annotated[str, "how these are chosen: ratio (at random), stratified (by label), time or group (by split_by)"]
    split_by: Annotated[
        str | None, "a table's column with the time or group of a row; no input, unless features name it"
    ]
    public_fraction: Annotated[float, "share that version 0 is trained on with server.seeding=pretrained"]
    held_out_fraction: Annotated[float, "share for the server's test set, where the data set brings none"]
    quarantine: Annotated[str | None, "a file of fl data validate: its clients are left out; null: nobody is"]


@dataclass
class Text(Dataset):
    """Text, cut into windows."""

    sequence_length: Annotated[int, "characters a window"]
    max_server_test: Annotated[int | None, "windows of the server's test set, drawn by the seed; null: all"]


@dataclass
class Hospitals(Dataset):
    """The table of heart disease."""

    label: Annotated[str | None, "null: disease or not; another column: that number is predicted"]
    standardize: Annotated[bool, "standardise columns by statistics merged over clients"]
    missing: Annotated[str, "what fills missing values: federated (merged medians) or client (its own)"]
    recipe: Annotated[list[Any] | None, "steps that make features of the columns; null: standardize and missing do"]


@dataclass
class Synthetic(Dataset):
    """FedProx's generator."""

    alpha: Annotated[float, "how much the clients' models differ"]
    beta: Annotated[float, "how much the clients' inputs differ"]
    clients: Annotated[int, "clients to draw"]
    dimension: Annotated[int, "inputs of an example"]
    classes: Annotated[int, "classes"]


@dataclass
class Arrays(Dataset):
    """Your own arrays in a file."""

    path: Annotated[str | None, "the file to read"]
    task: Annotated[str, "auto, classification, regression or next_token"]
    standardize: Annotated[bool, "standardise columns by statistics merged over clients"]
    missing: Annotated[str, "what fills missing values: federated (merged medians) or client (its own)"]
    recipe: Annotated[list[Any] | None, "steps that make features of the columns; null: standardize and missing do"]


@dataclass
class Table(Arrays):
    """Your own table in a file."""

    label: Annotated[str | None, "the column to predict"]
    client: Annotated[str | None, "the column that names the client"]
    features: Annotated[list[str] | None, "columns to predict from; null: all others"]


@dataclass
class Sql(Table):
    """What a query of your own gives. ``path``: a DuckDB database, or null where the query names its files."""

    query: Annotated[str | None, "the SELECT; with ORDER BY it gives the same rows in the same order each time"]
    url: Annotated[str | None, "SQLAlchemy's URL of a database, with $NAME of the environment for a password"]


@dataclass
class Hub(Table):
    """A data set of the Hugging Face Hub: ``path`` is its name there."""

    subset: Annotated[str | None, "configuration of a data set that has several"]


@dataclass
class Function(Dataset):
    """What a Python function of your own returns. ``_target_`` is another spelling of ``function``."""

    _target_: Annotated[str | None, "package.module.function, or file.py:function"]
    function: Annotated[str | None, "package.module.function, or file.py:function"]
    function_arguments: Annotated[dict[str, Any], "what the function is called with"]
    task: Annotated[str, "auto, classification, regression or next_token"]
    standardize: Annotated[bool, "standardise columns by statistics merged over clients"]
    missing: Annotated[str, "what fills missing values: federated (merged medians) or client (its own)"]


@dataclass
class Partition:
    """What every partition takes."""

    name: Annotated[str, "how examples are dealt to clients; follows from partition=NAME"]


@dataclass
class Iid(Partition):
    """Equal random parts."""

    examples_per_client: Annotated[int, "size of the overlapping views where there are more clients than examples"]


@dataclass
class Shards(Partition):
    """McMahan's pathological split."""

    shards_per_client: Annotated[int, "pieces of the examples sorted by label that a client gets"]


@dataclass
class Proportions(Partition):
    """Shares drawn from a Dirichlet distribution: of each class, or of the whole."""

    alpha: Annotated[float, "small: clients differ much; large: hardly"]
    min_size: Annotated[int, "examples that every client has at least"]


@dataclass
class LabelSkew(Partition):
    """A fixed number of classes a client."""

    classes_per_client: Annotated[int, "classes a client has"]


@dataclass
class FeatureSkew(Partition):
    """Inputs that differ by client."""

    kind: Annotated[str, "noise or rotation"]
    noise: Annotated[float, "deviation of the noisiest client: share of the range, or of a column's own deviation"]
    degrees: Annotated[float, "angle of the client that is turned furthest"]


@dataclass
class ConceptShift(Partition):
    """Labels that mean something else to some clients."""

    base: Annotated[str, "the partition whose labels are then changed"]
    fraction: Annotated[float, "share of the clients whose labels are changed"]
    kind: Annotated[str, "swap or permute"]
    num_concepts: Annotated[int, "different changes, shared by the changed clients in turn"]


@dataclass
class Schedule:
    """The learning rate over rounds."""

    name: Annotated[str, "constant, exponential, cosine or step"]
    decay: Annotated[float, "factor a round (exponential) or a step"]
    step_rounds: Annotated[int | None, "rounds a step lasts"]
    minimum: Annotated[float, "never below this share of client.learning_rate"]
    warmup_rounds: Annotated[int, "rounds over which the rate rises to its full value"]


@dataclass
class Client:
    """How a device trains, and what it sends."""

    path: Annotated[str, "auto, stacked (a unit's clients train at once) or one_by_one"]
    batch_size: Annotated[int | None, "examples a step; null: all of a client's at once"]
    local_epochs: Annotated[int | None, "passes over a client's examples a round"]
    local_steps: Annotated[int | None, "steps a round, in place of local_epochs"]
    learning_rate: Annotated[float, "step size of the clients' optimiser"]
    schedule: Annotated[Schedule, "how the learning rate changes over rounds"]
    optimizer: Annotated[str, "sgd, or a class of torch.optim by name, such as AdamW"]
    momentum: Annotated[float, "momentum of sgd"]
    nesterov: Annotated[bool, "Nesterov's form of momentum"]
    weight_decay: Annotated[float, "weight decay"]
    clip_norm: Annotated[float | None, "gradients are scaled down to this norm; null: never"]
    frozen: Annotated[list[str], "layers that no training moves, as patterns of array names: [conv*,0.*]"]
    denoise: Annotated[str | None, "noise taken out of training parts: neighbours (rows), median (images) or null"]
    balance: Annotated[str | None, "classes of a training part made equal: oversample, undersample, weights or null"]
    augment: Annotated[list[Any] | None, "steps that vary training examples: flip, shift, noise, mixup"]
    personal: Annotated[bool, "every device keeps a model of its own, specialised from the newest version"]
    personal_epochs: Annotated[int | None, "passes to specialise it; null: local_epochs"]
    personal_learning_rate: Annotated[float | None, "its step size, in every round; null: learning_rate as scheduled"]
    sends: Annotated[str, "fresh: trained from the newest version; personal: its own model's progress"]
    max_update_norm: Annotated[float | None, "updates of a larger norm are refused; null: none is"]
    dropout_fraction: Annotated[float, "share of the devices asked that are gone when they should train"]


@dataclass
class EarlyStopping:
    """When to end before ``num_rounds``."""

    metric: Annotated[str | None, "the server's metric to watch: loss, accuracy ...; null: never stop early"]
    patience: Annotated[int, "evaluations without improvement before stopping"]
    min_delta: Annotated[float, "what counts as improvement"]


@dataclass
class Server:
    """How the global model starts, is combined, kept and watched."""

    seeding: Annotated[str, "version 0: pretrained, random, a version (RUN:ROUND, champion ...), a run or a file"]
    seeding_epochs: Annotated[int, "passes over the public examples"]
    seeding_batch_size: Annotated[int, "examples a step on the public examples"]
    seeding_learning_rate: Annotated[float, "step size on the public examples"]
    weighting: Annotated[str, "what an update weighs: examples or uniform"]
    quorum: Annotated[float, "share of the cohort that must answer for a round to count"]
    round_retries: Annotated[int, "fresh cohorts to try where the quorum is missed"]
    deadline_seconds: Annotated[float | None, "later answers are left out; null: wait for all"]
    early_stopping: Annotated[EarlyStopping, "when to end early"]
    keep_versions: Annotated[str, "versions whose weights are kept: all, last:K or every:K"]
    selection_metric: Annotated[str | None, "which metric chooses the best version; null: by the task"]
    first_champion: Annotated[bool, "the best version becomes champion where the registry has none"]
    personal_evaluation: Annotated[bool, "with client.personal: measure every device's own model at the end"]
    tensorboard: Annotated[bool, "write TensorBoard's files"]
    terminal: Annotated[bool, "show progress"]


@dataclass
class Engine:
    """What runs the clients."""

    name: Annotated[str, "auto, inprocess, forked or ray; follows from engine=NAME"]
    num_actors: Annotated[int | None, "processes that train; null: one a core"]
    unit_size: Annotated[int | None, "clients that an actor handles in one go; null: what suits the model"]
    address: Annotated[str | None, "address of a running Ray cluster; null: start one here"]


@dataclass
class Folds:
    """What cross-validation leaves out of a run."""

    number: Annotated[int | None, "folds there are; null: nothing is left out"]
    index: Annotated[int, "the fold that is left out, from 0"]
    over: Annotated[str, "examples (of each client), clients, public (the server's), or bootstrap"]


@dataclass
class Simulate:
    """A simulation."""

    seed: Annotated[int, "the root of all randomness"]
    num_clients: Annotated[int | None, "how many devices there are; null: 100, or as in the data (partition=natural)"]
    cohort_size: Annotated[int | None, "how many take part in a round; null: 10, or all if fewer"]
    num_rounds: Annotated[int, "rounds of training"]
    run_dir: Annotated[str | None, "the run's folder; null: a new one below outputs/runs"]
    registry_dir: Annotated[str | None, "where versions are kept; null: outputs/registry"]
    evaluate_every: Annotated[int | None, "rounds between evaluations on the server's test set; null: first and last"]
    evaluate_clients_every: Annotated[int | None, "rounds between evaluations on the cohort's clients; null: never"]
    folds: Annotated[Folds, "the fold that a run leaves out"]
    unseen_clients: Annotated[Any, "clients that never train: a share, drawn by the seed, or a list of ids; null: none"]
    dataset: Annotated[Dataset, "the data"]
    partition: Annotated[Partition, "who holds which examples"]
    model: Annotated[Any, "the model"]
    algorithm: Annotated[Any, "our algorithm, client and server half, with strategy=own"]
    strategy: Annotated[Any, "own, or one of Flower's strategies"]
    client: Annotated[Client, "what the devices do"]
    server: Annotated[Server, "what the centre does"]
    engine: Annotated[Engine, "what runs the clients"]


@dataclass
class Constraints:
    """What the model may not exceed, whatever its metrics."""

    latency_seconds: Annotated[float | None, "time that one prediction may take"]
    size_bytes: Annotated[int | None, "what its parameters may weigh"]
    epsilon: Annotated[float | None, "privacy that may be spent; it takes a strategy that adds noise"]
    fairness_floor: Annotated[float | None, "the metric of the client that is served worst, at least"]


@dataclass
class Business:
    """What the model is for, and what it must fulfil."""

    objective: Annotated[str | None, "what is to be better, in words"]
    success: Annotated[dict[str, float], "metric: threshold; at least, or at most where less is better"]
    constraints: Annotated[Constraints, "what it may not exceed"]
    no_worse_than_champion: Annotated[bool, "refuse a model that a paired test finds worse than the champion"]
    owner: Annotated[str | None, "who answers for it"]
    intended_use: Annotated[str | None, "what it may be used for"]
    risks: Annotated[list[str], "what may go wrong"]
    least_progress: Annotated[float, "share of the way to each threshold that a quick baseline must come: go, or no-go"]
    go_anyway: Annotated[bool, "go on after a no-go"]


@dataclass
class Evaluation:
    """How a version is examined on held-back examples."""

    slices: Annotated[list[str] | None, "columns of a table whose slices are looked at; null: all"]
    sensitive: Annotated[str | None, "the column whose groups are to be treated alike; null: none"]
    resamples: Annotated[int, "resamples of the bootstrap"]
    confidence: Annotated[float, "of the intervals"]


@dataclass
class Selection:
    """Which other models the configured one is compared with."""

    rounds: Annotated[int, "that every candidate trains; 0: none are compared"]


@dataclass
class Package:
    """The bundle that the pipeline ends with."""

    formats: Annotated[list[str], "those of fl export beside the parameters themselves"]
    key: Annotated[str | None, "a PEM file with the Ed25519 private key that signs; null: nobody signs"]


@dataclass
class Lifecycle(Simulate):
    """The stages around a simulation."""

    business: Annotated[Business, "what the model is for"]
    evaluation: Annotated[Evaluation, "how good it is"]
    keep_runs: Annotated[
        bool, "keep older runs below DIR/runs, which no alias and no lineage needs; false: remove them"
    ]
    selection: Annotated[Selection, "what the configured model is compared with"]
    package: Annotated[Package, "what it goes out as"]
    rules: Annotated[str | None, "rules that every client must keep; null: inferred, then DIR/validate/rules.yaml"]
    stage: Annotated[str | None, "the stage to come to, with those that it depends on; null: all"]


@dataclass
class Budget:
    """What a search for a model may spend."""

    minutes: Annotated[float, "after which nothing more is begun"]
    rounds: Annotated[int, "of training, over all trials"]
    at_once: Annotated[int, "trials that train at the same time; as many as there are cores at the most"]


@dataclass
class Automl(Simulate):
    """A search for a model."""

    budget: Annotated[Budget, "what it may spend"]


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
        "sql": Sql,
        "function": Function,
    },
    "business": {"business": Business},
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
