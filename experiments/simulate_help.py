"""`fl simulate --help`: the groups with their choices, the settings most used, and examples."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from conf.schema import Simulate
from experiments.choices import GROUPS, choices, defaults, meanings, top_values, values

MOST_USED = (
    *("client.learning_rate", "client.batch_size", "client.local_epochs", "client.optimizer", "client.personal"),
    *("server.seeding", "server.early_stopping.metric", "server.keep_versions", "engine.num_actors"),
    *("dataset.validation_fraction", "dataset.test_fraction", "dataset.split", "dataset.split_by"),
)
EXAMPLES = (
    ("fl simulate", "MNIST over 100 clients with about two digits each"),
    ("fl simulate dataset=shakespeare num_rounds=20", "the model and the partition follow from the data set"),
    ("fl simulate dataset=csv dataset.path=my.csv dataset.label=y dataset.client=site", "your own table"),
    ("fl simulate model=custom model._target_=package.module.Net model.width=3", "your own torch.nn.Module"),
    ("fl simulate client.personal=true", "every device also specialises a model of its own"),
    ("fl simulate --multirun seed=1,2 strategy=fedavg,fedadam,fedmedian", "six runs, compared in TensorBoard"),
    ("fl simulate dataset=synthetic --cfg job", "print the settings and run nothing"),
)
OPTIONS = (
    ("-m, --multirun", "run every combination of values given as a,b or range(1,5) or choice(a,b)"),
    ("-c, --cfg job|hydra|all", "print the composed settings and run nothing; --resolve fills in references"),
    ("-p, --package KEY", "with --cfg: only this part"),
    ("-i, --info WHAT", "what Hydra knows: all, config, defaults, defaults-tree, plugins, searchpath"),
    ("--config-dir DIR", "look for more YAML files in DIR, such as DIR/experiment/mine.yaml"),
    ("--help", "show this and exit"),
)


def show(console: Console) -> None:
    """Print the help."""
    console.print("\n [bold yellow]Usage:[/] [bold]fl simulate \\[OPTIONS] \\[GROUP=CHOICE | KEY=VALUE]...[/]\n")
    console.print(" Simulate federated learning: train a global model over simulated clients.\n")
    console.print(_panel("Groups: GROUP=CHOICE", _groups()))
    console.print(_panel("Settings: KEY=VALUE (all of them: fl simulate --cfg job)", _settings()))
    console.print(_panel("Options", _rows(OPTIONS)))
    console.print(_panel("Examples", _rows(EXAMPLES)))


def _groups() -> Table:
    chosen = defaults()
    table = _rows([])
    for group in GROUPS:
        names = Text()
        for name in choices(group):
            names.append(f"{name} ", style="bold green" if name == chosen.get(group) else "")
        table.add_row(group, names)
    table.add_row("", Text("green: the default; a data set brings its own model and partition", style="dim"))
    return table


def _settings() -> Table:
    known = top_values()
    for group, choice in defaults().items():
        known |= {f"{group}.{key}": value for key, value in values(group, choice).items()}
    said = meanings(Simulate)
    table = Table(box=None, show_header=False, pad_edge=False)
    for key in (*top_values(), *MOST_USED):
        table.add_row(Text(key, style="cyan"), _yaml(known[key]), Text(said[key]))
    return table


def _rows(rows: Sequence[tuple[str, str]]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="cyan", overflow="fold")
    table.add_column()
    for left, right in rows:
        table.add_row(Text(left), Text(right))
    return table


def _panel(title: str, content: Table) -> Panel:
    return Panel(content, title=title, title_align="left", border_style="dim")


def _yaml(value: object) -> str:
    """As the value would be typed."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
