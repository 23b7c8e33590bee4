"""The model elements of PMML: what is asked, what is answered, and in between a regression, a network or trees."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fl.packaging.formulas import Formulas
from fl.packaging.layers import Dense
from fl.packaging.operations import Program, Trees
from fl.packaging.pmml_terms import element
from fl.parameters import Array

_ACTIVATIONS = {"relu": "rectifier", "tanh": "tanh", "sigmoid": "logistic", None: "identity"}


@dataclass(frozen=True)
class Fields:
    """Names: of the columns, of what the model proper is fed, of what it is asked. ``labels``: none for a number."""

    inputs: tuple[str, ...]
    fed: tuple[str, ...]
    target: str
    labels: tuple[str, ...]

    @classmethod
    def of(cls, program: Program) -> Fields:
        signature = program.signature
        names = signature.feature_names or tuple(f"x{i}" for i in range(program.inputs))
        target = _unused("label" if signature.task == "classification" else "target", names)
        labels = tuple(program.label_of(i) for i in range(signature.num_outputs))
        return cls(names, names, target, labels if signature.task == "classification" else ())

    def fed_by(self, names: Sequence[str]) -> Fields:
        return replace(self, fed=tuple(names))

    def names_for(self, formulas: Formulas) -> list[str]:
        """Of each term: an input's own, or one that no column has."""
        prefix = _unused("t", [name.rstrip("0123456789") for name in self.inputs])
        return [
            self.inputs[int(term.value)] if term.operation == "input" else f"{prefix}{place}"
            for place, term in enumerate(formulas.terms)
        ]

    @property
    def function(self) -> str:
        return "classification" if self.labels else "regression"

    def dictionary(self, root: ET.Element) -> None:
        parent = element(root, "DataDictionary", numberOfFields=str(len(self.inputs) + 1))
        for name in self.inputs:
            element(parent, "DataField", name=name, optype="continuous", dataType="double")
        kind = {"optype": "categorical", "dataType": "string"} if self.labels else {"optype": "continuous"}
        target = element(parent, "DataField", name=self.target, **{"dataType": "double", **kind})
        for label in self.labels:
            element(target, "Value", value=label)

    def asked(self, model: ET.Element, *, inner: bool = False) -> None:
        """MiningSchema and Output, which every model begins with; a model inside another has no target of its own."""
        schema = element(model, "MiningSchema")
        for name in self.inputs:
            element(schema, "MiningField", name=name, invalidValueTreatment="asIs")
        if inner:
            return
        element(schema, "MiningField", name=self.target, usageType="target")
        outputs = element(model, "Output")
        kind = {"optype": "categorical", "dataType": "string"} if self.labels else {"optype": "continuous"}
        name = "predicted label" if self.labels else "prediction"
        element(outputs, "OutputField", name=name, feature="predictedValue", **{"dataType": "double", **kind})
        for label in self.labels:
            element(outputs, "OutputField", name=f"probability({label})", optype="continuous", dataType="double",
                    feature="probability", value=label)  # fmt: skip


def regression(parent: ET.Element, fields: Fields, layer: Dense) -> None:
    """One linear layer."""
    how = {"normalizationMethod": "softmax"} if fields.labels else {}
    model = element(parent, "RegressionModel", functionName=fields.function, **how)
    fields.asked(model)
    weights, biases = _texts(layer.weight), _texts(layer.bias)
    for i, bias in enumerate(biases):
        category = {"targetCategory": fields.labels[i]} if fields.labels else {}
        table = element(model, "RegressionTable", intercept=bias, **category)
        for name, weight in zip(fields.fed, weights[i], strict=True):
            element(table, "NumericPredictor", name=name, coefficient=weight)


def network(parent: ET.Element, fields: Fields, layers: Sequence[Dense]) -> None:
    """Dense layers, one after the other."""
    last = "softmax" if fields.labels else "none"
    hidden = _ACTIVATIONS[layers[0].activation]
    model = element(parent, "NeuralNetwork", functionName=fields.function, activationFunction=hidden)
    fields.asked(model)
    inputs = element(model, "NeuralInputs", numberOfInputs=str(len(fields.fed)))
    for i, name in enumerate(fields.fed):
        field = element(element(inputs, "NeuralInput", id=f"0,{i}"), "DerivedField", optype="continuous",
                        dataType="double")  # fmt: skip
        element(field, "FieldRef", field=name)
    for number, layer in enumerate(layers, 1):
        ends = {"normalizationMethod": last} if number == len(layers) and fields.labels else {}
        made = element(model, "NeuralLayer", numberOfNeurons=str(len(layer.bias)),
                       activationFunction=_ACTIVATIONS[layer.activation], **ends)  # fmt: skip
        for i, (bias, weights) in enumerate(zip(_texts(layer.bias), _texts(layer.weight), strict=True)):
            neuron = element(made, "Neuron", id=f"{number},{i}", bias=bias)
            for j, weight in enumerate(weights):
                element(neuron, "Con", from_=f"{number - 1},{j}", weight=weight)
    outputs = element(model, "NeuralOutputs", numberOfOutputs=str(len(layers[-1].bias)))
    for i in range(len(layers[-1].bias)):
        output = element(outputs, "NeuralOutput", outputNeuron=f"{len(layers)},{i}")
        if fields.labels:
            field = element(output, "DerivedField", optype="categorical", dataType="string")
            element(field, "NormDiscrete", field=fields.target, value=fields.labels[i])
        else:
            field = element(output, "DerivedField", optype="continuous", dataType="double")
            element(field, "FieldRef", field=fields.target)


def trees(parent: ET.Element, fields: Fields, operation: Trees) -> None:
    """The sum of trees, one a class where a leaf has several numbers; then the regression that makes probabilities."""
    width = operation.leaf.shape[1]
    chain = element(parent, "MiningModel", functionName=fields.function)
    fields.asked(chain)
    segments = element(chain, "Segmentation", multipleModelMethod="modelChain")
    margin = _unused("margin", [name.rstrip("0123456789") for name in fields.inputs])
    names = tuple(f"{margin}{k}" for k in range(width))
    for k, name in enumerate(names):
        segment = element(segments, "Segment", id=str(k + 1))
        element(segment, "True")
        model = element(segment, "MiningModel", functionName="regression")
        fields.asked(model, inner=True)
        element(element(model, "Output"), "OutputField", name=name, optype="continuous", dataType="double",
                feature="predictedValue", isFinalResult="false")  # fmt: skip
        _sum(model, fields, operation, k)
    segment = element(segments, "Segment", id=str(width + 1))
    element(segment, "True")
    weight = np.concatenate([np.zeros((int(operation.zero_first), width)), np.eye(width)])
    bias = np.array([0.0] * operation.zero_first + [operation.base] * width)
    regression(segment, replace(fields, inputs=names, fed=names), Dense(weight, bias))


def _sum(model: ET.Element, fields: Fields, operation: Trees, k: int) -> None:
    segments = element(model, "Segmentation", multipleModelMethod="sum")
    for i, root in enumerate(operation.roots.tolist()):
        segment = element(segments, "Segment", id=str(i + 1))
        element(segment, "True")
        tree = element(segment, "TreeModel", functionName="regression", missingValueStrategy="defaultChild",
                       splitCharacteristic="binarySplit")  # fmt: skip
        fields.asked(tree, inner=True)
        _node(tree, fields, operation, k, root, None)


def _node(parent: ET.Element, fields: Fields, trees: Trees, k: int, node: int, above: tuple[int, str] | None) -> None:
    left, right = int(trees.left[node]), int(trees.right[node])
    leaf = left == node
    told = {"score": repr(float(trees.leaf[node, k]))} if leaf else {}
    told |= {} if leaf else {"defaultChild": str(left if trees.default_left[node] else right)}
    made = element(parent, "Node", id=str(node), **told)
    if above is None:
        element(made, "True")
    else:
        name, threshold = fields.inputs[int(trees.feature[above[0]])], repr(float(trees.threshold[above[0]]))
        element(made, "SimplePredicate", field=name, operator=above[1], value=threshold)
    if not leaf:
        _node(made, fields, trees, k, left, (node, "lessThan"))
        _node(made, fields, trees, k, right, (node, "greaterOrEqual"))


def _unused(name: str, names: Sequence[str]) -> str:
    while name in names:
        name += "_"
    return name


def _texts(array: Array) -> Any:
    """The shortest digits that give the same bits in the array's own dtype: a list, or a list a row."""
    return array.astype(str).tolist()
