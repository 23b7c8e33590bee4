"""PMML 4.4: the open standard for models of tables, as databases and decision engines read it; preprocessing included.

Linear models are a RegressionModel, perceptrons a NeuralNetwork, trees a MiningModel; a recipe becomes derived fields.
It says probabilities where the model says logits, and computes in float64. PMML knows no convolution, no recurrence.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from fl.errors import BadInput
from fl.packaging.apart import run
from fl.packaging.layers import dense_layers
from fl.packaging.metadata import KEY, signature_of, to_text
from fl.packaging.operations import Features, Program, Trees
from fl.packaging.pmml_models import Fields, network, regression, trees
from fl.packaging.pmml_terms import derived_fields, element
from fl.packaging.predict import Predict
from fl.packaging.reading import program_of
from fl.parameters import Array
from fl.signature import Signature

NAMESPACE = "http://www.dmg.org/PMML-4_4"

# pypmml starts a Java process; it ends with this one.
READER = """
import sys
from pypmml import Model
from pypmml.jvm import PMMLError
try:
    print(Model.fromFile(sys.argv[1]).predict(sys.stdin.read()))
except PMMLError as error:
    sys.exit(" ".join(map(str, error.args)))
"""


def check(module: nn.Module, signature: Signature) -> None:
    """Raise BadInput if PMML has no word for the model, or no Java is there to prove the file with."""
    _parts(program_of(module, signature))
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        raise BadInput(key="--format pmml", got="no Java", allowed="java in PATH: the file is proved by PMML4S")


def write(module: nn.Module, example: Tensor, path: Path, *, metadata: Mapping[str, Any]) -> None:
    """One XML file. ``example`` is not needed."""
    signature = signature_of(metadata)
    program = program_of(module, signature)
    features, rest = _parts(program)
    fields = Fields.of(program)
    root = ET.Element("PMML", {"xmlns": NAMESPACE, "version": "4.4"})
    header = element(root, "Header")
    element(header, "Extension", name=KEY, value=to_text(metadata))
    element(header, "Application", name="Meadow")
    fields.dictionary(root)
    if features is not None:
        names = fields.names_for(features.formulas)
        fields = fields.fed_by(derived_fields(element(root, "TransformationDictionary"), features.formulas, names))
    if isinstance(rest, Trees):
        trees(root, fields, rest)
    elif len(rest) == 1 and rest[0].activation is None:
        regression(root, fields, rest[0])
    else:
        network(root, fields, rest)
    ET.indent(root, space="")
    path.write_bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def read(path: Path) -> Predict:
    """PMML4S, through pypmml, in a process of its own."""
    root = ET.parse(path).getroot()
    signature = signature_of(root.findall("{*}Header/{*}Extension")[0].attrib["value"])
    fields = [field.attrib["name"] for field in root.findall("{*}DataDictionary/{*}DataField")]
    names = fields[:-1]  # the last is the target

    def predict(inputs: Array) -> Array:
        rows = inputs.reshape(len(inputs), -1).astype(np.float64).astype(object)
        rows[rows != rows] = None
        given = json.dumps({"columns": names, "data": rows.tolist()})
        told = json.loads(run([sys.executable, "-c", READER, path], given.encode()).splitlines()[-1])
        wanted = [i for i, name in enumerate(told["columns"]) if name.startswith("probability(")]
        wanted = wanted or [told["columns"].index("prediction")]
        answers = np.array([[row[i] for i in wanted] for row in told["data"]])
        return answers.astype(np.float64 if signature.input_dtype == "float64" else np.float32)

    return predict


def probabilities(outputs: Array, signature: Signature) -> Array:
    """What the file says where the model says ``outputs``: of classes their probabilities, else the same."""
    if signature.task == "regression":
        return outputs
    raised = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def _parts(program: Program) -> tuple[Features | None, Any]:
    """The preprocessing, and trees or dense layers. Raises BadInput, naming it, for what PMML cannot say."""
    return dense_layers(program, language="PMML", with_trees=True)
