"""The model card: what whoever meets a version should know of it, from its manifest and its evidence.

After Mitchell et al., Model Cards for Model Reporting, 2019. A card is sections of fields, and a field has a value or
the reason why there is none: there is no third thing. Which function gives which text:

    card(...)        the fields
    markdown(card)   the card as Markdown, which `fl package` puts into a bundle
    html(card)       the card as a page of HTML

What names a run, a time or this machine comes by ``identity`` and the evidence's ``measured`` alone: without them the
same model with the same evidence has the same card.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from fl.data.report import STYLE
from fl.signature import Signature

Evidence = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Field:
    """``value`` in words, or ``why_not``: exactly one of them is there."""

    name: str
    value: str
    why_not: str = ""

    def __post_init__(self) -> None:
        if bool(self.value) == bool(self.why_not):
            raise ValueError(f"the field {self.name!r} needs a value, or a reason why it has none")


@dataclass(frozen=True)
class Card:
    """A title, and sections of fields by their titles."""

    title: str
    sections: Mapping[str, Sequence[Field]]


def card(
    version: Mapping[str, Any],
    signature: Signature,
    evidence: Evidence,
    *,
    identity: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Card:
    """The card of a version.

    version     of its manifest at least model, dataset, metrics, model_sha256, round, seed
    evidence    by the name of the stage that found it
    identity    what names it in its registry: name, hash, created, parent, aliases ...; None: it is left out
    config      the settings of its run; None: it is left out
    """
    kind = str(version["model"]["target"]).removeprefix("fl.models.").removesuffix(".build")
    data = version["dataset"].get("name") or "data without a name"
    sections = {
        "Model": [*_identity(identity), *_model(version, signature, evidence)],
        "Intended use": list(_use(evidence)),
        "Data": list(_data(version, evidence)),
        "Training": list(_training(version, evidence, config)),
        "Figures on held-back examples": list(_figures(version, evidence)),
        "Parts, groups and clients": list(_parts(evidence)),
        "Robustness and explanation": list(_robustness(evidence)),
        "Acceptance": list(_acceptance(evidence)),
        "Limits": list(_limits(evidence)),
    }
    return Card(f"{kind} on {data}", {title: fields for title, fields in sections.items() if fields})


def markdown(made: Card) -> str:
    """The card as Markdown: a table a section."""
    lines = [f"# {made.title}", ""]
    for title, fields in made.sections.items():
        lines += [f"## {title}", "", "| | |", "|---|---|"]
        for one in fields:
            told = one.value or f"*none: {one.why_not}*"
            lines.append(f"| {_cell(one.name)} | {_cell(told)} |")
        lines.append("")
    return "\n".join(lines)


def html(made: Card) -> str:
    """The card as a page."""
    return page(made.title, body(made))


def body(made: Card) -> str:
    """The card's sections as HTML, without the page around them."""
    parts = []
    for title, fields in made.sections.items():
        rows = "".join(
            f"<tr><td>{escape(one.name)}<td>{escape(one.value) if one.value else f'<i>none: {escape(one.why_not)}</i>'}"
            for one in fields
        )
        parts.append(f"<h2>{escape(title)}</h2><table>{rows}</table>")
    return "\n".join(parts)


def page(title: str, content: str) -> str:
    """A page of HTML that needs nothing else: no script, nothing fetched."""
    more = "td{vertical-align:top;padding:.15rem .9rem .15rem 0} td:first-child{white-space:nowrap} svg{max-width:100%}"
    head = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><style>{STYLE}{more}</style>"
    )
    return f"{head}\n<h1>{escape(title)}</h1>\n{content}\n</html>\n"


def _identity(identity: Mapping[str, Any] | None) -> Iterator[Field]:
    for name, value in (identity or {}).items():
        yield _field(name.replace("_", " "), value, f"this version has no {name.replace('_', ' ')}")


def _model(version: Mapping[str, Any], signature: Signature, evidence: Evidence) -> Iterator[Field]:
    shape = " x ".join(str(side) for side in signature.input_shape)
    yield _field("built by", version["model"]["target"], "")
    yield _field("with", version["model"].get("arguments"), "it takes no options")
    yield _field("task", signature.task, "")
    yield _field("takes", f"{shape} of {signature.input_dtype}", "")
    yield _field("inputs", signature.feature_names, "they have no names: pictures, or text")
    gives = "one number" if signature.num_outputs == 1 else f"{signature.num_outputs} numbers"
    yield _field("gives", gives, "")
    yield _field(
        "classes", signature.class_names, "they have no names" if signature.num_outputs > 1 else "a regression"
    )
    size = evidence.get("evaluate", {}).get("resources", {})
    told = f"{size['parameters']:,} numbers, {size['bytes']:,} bytes" if size else None
    yield _field("size", told, _unfound("evaluate"))
    took = evidence.get("evaluate", {}).get("measured", {}).get("latency_seconds")
    told = f"{1000 * took:.3g} ms for one example on one thread of the machine that measured it" if took else None
    yield _field("speed", told, "it was not measured, or does not belong into this copy of the card")
    yield _field("SHA-256 of the parameters", version["model_sha256"], "")
    yield _field("after round", str(version["round"]), "")
    yield _field("seed", str(version["seed"]), "")


def _use(evidence: Evidence) -> Iterator[Field]:
    goal = evidence.get("understand", {})
    for name in ("objective", "intended_use", "owner", "risks"):
        why = f"nobody said: business.{name}" if goal else _unfound("understand")
        yield _field(name.replace("_", " "), goal.get(name), why)


def _data(version: Mapping[str, Any], evidence: Evidence) -> Iterator[Field]:
    found, split = evidence.get("ingest", {}), evidence.get("split", {})
    yield _field("name", version["dataset"].get("name"), "the run did not name its data")
    yield _field("fingerprint", version["dataset"].get("fingerprint"), "the run did not hash its data")
    for name in ("origin", "licence"):
        yield _field(name, found.get(name), "the data do not say" if found else _unfound("ingest"))
    for name, of, stage in (
        ("examples", found.get("examples"), "ingest"),
        ("missing values", found.get("missing_values"), "ingest"),
        ("clients", split.get("num_clients"), "split"),
        ("public examples", split.get("public_examples"), "split"),
    ):
        yield _field(name, None if of is None else f"{of:,}", _unfound(stage))
    for stage, name in (("profile", "profile"), ("validate", "checks"), ("wrangle", "preparation")):
        yield _field(name, evidence.get(stage, {}).get("found"), _unfound(stage))


def _training(version: Mapping[str, Any], evidence: Evidence, config: Mapping[str, Any] | None) -> Iterator[Field]:
    yield _field("how", "federated: devices trained on examples that never left them, and sent what they learned", "")
    if config is not None:
        client, own = config.get("client", {}), config.get("strategy", {}).get("_target_")
        algorithm = own or config.get("algorithm", {}).get("_target_")
        yield _field("algorithm", algorithm, "the run did not record one")
        yield _field("clients a round", config.get("cohort_size"), "the run did not record it")
        told = {name: client.get(name) for name in ("optimizer", "learning_rate", "batch_size", "local_epochs")}
        yield _field("on a device", {k: v for k, v in told.items() if v is not None}, "the run did not record it")
        private = own.rpartition(".")[2] if own and "DifferentialPrivacy" in own else None
        yield _field("differential privacy", private, "no strategy that adds noise was chosen")
        if private:
            yield _field("what it bought", *_spent(evidence.get("evaluate", {}).get("privacy")))
    train = evidence.get("train", {})
    yield _field("rounds", train.get("rounds"), _unfound("train"))
    selection = train.get("selection")
    told_best = f"the best of them by {selection['metric']}" if selection else None
    yield _field("which round", told_best, _unfound("train"))
    if made := version.get("compression"):
        done, learned = _SMALLER[made["kind"]].format(**made), made.get("learned") or {}
        how = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in sorted(learned.items()))
        yield Field("made smaller", f"{done}; then it learned from the original's answers: {how}" if how else done)
        yield _field("what that cost", evidence.get("compress", {}).get("found"), "nobody compared them")


_SMALLER = {
    "prune": "the smallest {fraction} of the weights were set to zero",
    "prune_units": "the weakest {fraction} of the hidden units of every layer were taken out",
    "distil": "another model took the place of the original",
}


def _spent(privacy: Mapping[str, Any] | None) -> tuple[str | None, str]:
    """Epsilon in words, and why there is none."""
    if privacy is None or "absent" in privacy:
        return None, (privacy or {}).get("absent", _unfound("evaluate"))
    return (
        f"by client, epsilon {privacy['epsilon']:.3g} at delta {privacy['delta']:.3g}, after "
        f"{privacy['most_rounds_of_a_client']} rounds at most; {'; '.join(privacy['assumptions'])}"
    ), ""


def _figures(version: Mapping[str, Any], evidence: Evidence) -> Iterator[Field]:
    found = evidence.get("evaluate")
    if not found:
        for name, value in version["metrics"].items():
            yield _field(name, None if value is None else _number(value), "it was no finite number")
        yield Field("intervals", "", _unfound("evaluate"))
        return
    held = found["examples"]
    yield _field("examples", f"{held['count']:,}: {held['origin']}", "")
    for name, one in found["metrics"].items():
        told = between(one, found["confidence"]) if one["value"] is not None else None
        yield _field(name, told, "it is no number on these examples")
    goal, train = evidence.get("understand", {}), evidence.get("train", {})
    yield _field("without looking", _short(goal.get("trivial")), _unfound("understand"))
    yield _field("a quick baseline", _short(goal.get("baseline")), _unfound("understand"))
    yield _field("version 0", _short(train.get("version_0")), _unfound("train"))
    sure = found["calibration"]
    error = f"what it is sure of is off by {sure['answered']['error']:.2%} on average" if "answered" in sure else None
    yield _field("calibration", error, sure.get("absent", ""))
    each = found["classes"].get("each")
    told = "; ".join(
        f"{one['name']}: precision {_number(one['precision'])}, recall {_number(one['recall'])} ({one['examples']})"
        for one in each or ()
    )
    yield _field("class by class", told, found["classes"].get("absent", ""))
    champion = found["champion"]
    told = None
    if "worse_p" in champion:
        told = (
            f"{champion['metric']} {champion['value']:.4g} against {champion['other']:.4g}; by chance alone it would "
            f"look so much worse with p {champion['worse_p']:.3g} ({champion['test']})"
        )
    yield _field("against the champion before", told, champion.get("absent", ""))


def _parts(evidence: Evidence) -> Iterator[Field]:
    found = evidence.get("evaluate", {})
    worst, fair = (found.get(name, {}) for name in ("worst_slice", "fairness"))
    told = f"{worst['name']}: {worst['metric']} {between(worst, found['confidence'])}" if "name" in worst else None
    yield _field("worst slice", told, worst.get("absent") or _unfound("evaluate"))
    apart = {name.replace("_", " "): value for name, value in fair.items() if name.endswith(("difference", "ratio"))}
    told = f"by {fair['column']}: {_short(apart)}" if apart else None
    yield _field("fairness", told, fair.get("absent") or _unfound("evaluate"))
    groups = "; ".join(f"{one['group']}: {one['examples']} examples" for one in fair.get("groups", ()))
    yield _field("groups", groups, fair.get("absent") or _unfound("evaluate"))
    clients = found.get("clients", {})
    told = None
    if "worst" in clients:
        one = clients["worst"]
        spread = _short(clients["metrics"].get(one["metric"], {}))
        told = f"{one['metric']} of {clients['count']} clients on their own examples: {spread}"
    yield _field("clients", told, clients.get("absent") or _unfound("evaluate"))
    personal = evidence.get("clients", {}).get("found")
    yield _field("personal and local models", personal, "nobody measured them: fl clients does")


def _robustness(evidence: Evidence) -> Iterator[Field]:
    found = evidence.get("evaluate", {})
    kinds = {one["kind"]: one for one in found.get("robustness", ())}
    for kind in ("noise", "shift", "missing", "adversarial"):
        one = kinds.get(kind, {})
        steps = ", ".join(f"{step['value']:.4g} at {step['strength']:g}" for step in one.get("values", ()))
        told = f"{one['metric']} {one['unchanged']:.4g}, {steps}" if steps else None
        yield _field(kind, told, one.get("absent") or _unfound("evaluate"))
    explained = found.get("explanation", {})
    first = explained.get("permutation", ())[:5]
    told = ", ".join(f"{one['input']} {one['importance']:.3g}" for one in first)
    yield _field("matters most", told, explained.get("absent") or _unfound("evaluate"))
    gradients = explained.get("integrated_gradients", {})
    told = ", ".join(f"{one['input']} {one['size']:.3g}" for one in gradients.get("each", ())[:5])
    why = gradients.get("absent") or explained.get("absent") or _unfound("evaluate")
    yield _field("moves the answer most", told, why)


def _acceptance(evidence: Evidence) -> Iterator[Field]:
    found = evidence.get("accept")
    why = _unfound("accept")
    verdict = None if found is None else "accepted" if found["accepted"] else "refused"
    yield _field("verdict", verdict, why)
    partial = "this copy of the card does not say" if found is not None else why
    asked = (found or {}).get("criteria")
    told = _short({**asked["success"], **asked["constraints"]}) if asked else None
    yield _field("asked for", told, "nothing was asked for" if asked else partial)
    for name, key in (("fulfilled", "held"), ("not fulfilled", "reasons")):
        told = None if found is None or key not in found else "; ".join(found[key]) or "nothing"
        yield _field(name, told, partial)
    override = (found or {}).get("override")
    told = None
    if override:
        signed = " ".join(str(override[key]) for key in ("by", "time") if override.get(key))
        told = f"{override['reason']}{f' ({signed})' if signed else ''}"
    yield _field("goes out nevertheless", told, "nobody overrode the verdict")


def _limits(evidence: Evidence) -> Iterator[Field]:
    yield _field("population", "it knows the clients that it was trained on, as they were then", "")
    told = "an update, and so the model, can still tell something about the examples it came from"
    yield _field("privacy", told, "")
    chosen = evidence.get("evaluate", {}).get("examples", {}).get("chose_the_version")
    yield _field("figures", chosen, _unfound("evaluate"))
    yield _field("slices", "the worst of many slices looks worse than it is", "")


def between(one: Mapping[str, Any], confidence: float) -> str:
    """A figure and its interval, in words."""
    if one.get("low") is None:
        return f"{one['value']:.4g}, without an interval"
    return f"{one['value']:.4g} ({confidence:.0%} from {one['low']:.4g} to {one['high']:.4g})"


def _field(name: str, value: Any, why_not: str) -> Field:
    told = _text(value)
    return Field(name, told, "" if told else why_not or "it is not known")


def _unfound(stage: str) -> str:
    command = {"evaluate": "fl evaluate", "accept": "fl accept"}.get(stage, "fl lifecycle")
    return f"there is no evidence {stage}: {command} makes it"


def _short(values: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{name} {_number(value)}" for name, value in (values or {}).items())


def _number(value: Any) -> str:
    return "none" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(one) for one in value)
    return "" if value is None else " ".join(str(value).split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
