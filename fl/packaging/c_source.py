"""Amalgamation: a model as one C99 file that needs a compiler and libm, for devices without a runtime.

    gcc -std=c99 -O2 model.c -o model -lm && ./model rows.csv      or, with -DMEADOW_NO_MAIN, in one's own program:

    meadow_predict(input, output, work)    0, or -1 for a token outside the vocabulary; keeps nothing between calls
    meadow_label(output)                   which of meadow_labels

CSV: a comma between cells, an empty one is missing; columns by their names where there is a header and the data have
names, else in order. Line breaks inside a cell are not read.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from fl.errors import BadInput
from fl.packaging import c_parts
from fl.packaging.apart import kept_with, run, scratch
from fl.packaging.cells import answers_of, cell, column_names, rows_as_csv
from fl.packaging.formulas import CONDITIONS, Formulas, Term
from fl.packaging.metadata import signature_of, to_text
from fl.packaging.operations import (
    Activation,
    Affine,
    Convolution,
    Embedding,
    Features,
    Flatten,
    Lstm,
    MaxPool,
    Program,
    Shape,
    Trees,
    Unit,
)
from fl.packaging.predict import Predict
from fl.packaging.reading import program_of
from fl.parameters import Array
from fl.signature import Signature

FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror")
_MARK = "/* meadow "


def check(module: nn.Module, signature: Signature) -> None:
    """Raise BadInput if a layer has no C, or no compiler is there to prove the file with."""
    program_of(module, signature)
    _compiler()


def write(module: nn.Module, example: Tensor, path: Path, *, metadata: Mapping[str, Any]) -> None:
    """One file in ASCII. ``example`` is not needed."""
    signature = signature_of(metadata)
    program = program_of(module, signature)
    printed = _Printed(program)
    # In a comment: JSON may write / and ? otherwise, and then nothing in it means anything to a compiler.
    told = to_text(metadata).replace("/", "\\/").replace("?", "\\u003f")
    parts = [f"{_MARK}{told} */", _PREAMBLE.format(**_sizes(program)), *printed.kernels, *printed.tables]
    parts += [_names(program), printed.predict(), _LABEL if _labels(program) else "", c_parts.MAIN.lstrip()]
    path.write_text("\n".join(part for part in parts if part), encoding="ascii")


def read(path: Path) -> Predict:
    """The file compiled without a warning, as a program of its own."""
    signature = signature_of_file(path.read_text(encoding="ascii"))
    folder = scratch()
    binary = folder / "model"

    def predict(inputs: Array) -> Array:
        return answers_of(run([binary], rows_as_csv(inputs).encode()).decode(), signature)

    kept_with(folder, predict)
    run([_compiler(), *FLAGS, path, "-o", binary, "-lm"])
    return predict


def signature_of_file(text: str) -> Signature:
    """The signature in the first line of a file that ``write`` made."""
    first = text.partition("\n")[0]
    return signature_of(first.removeprefix(_MARK).removesuffix(" */"))


def _compiler() -> str:
    found = shutil.which("gcc") or shutil.which("cc")
    if found is None:
        raise BadInput(key="--format c", got="no C compiler", allowed="gcc or cc in PATH: the file is proved with it")
    return found


_PREAMBLE = """\
#include <math.h>
#include <stddef.h>

typedef {real} real;
#define EXP {exp}
#define TANH {tanh}
#define MEADOW_DIGITS "{digits}"
#define MEADOW_INPUTS {inputs}
#define MEADOW_OUTPUTS {outputs}
#define MEADOW_WORK {work}
#define MEADOW_LABELS {labels}
#define MEADOW_NAMED {named}
#define MEADOW_TEXT_(x) #x
#define MEADOW_TEXT(x) MEADOW_TEXT_(x)
"""

_LABEL = """\
int meadow_label(const real *output);
int meadow_label(const real *output)
{
    const real *last = output + MEADOW_OUTPUTS - MEADOW_LABELS;
    int i, best = 0;
    for (i = 1; i < MEADOW_LABELS; i++)
        if (last[i] > last[best])
            best = i;
    return best;
}
"""


def _sizes(program: Program) -> dict[str, Any]:
    wide = program.wide
    return {
        "real": "double" if wide else "float",
        "exp": "exp" if wide else "expf",
        "tanh": "tanh" if wide else "tanhf",
        "digits": "%.17g" if wide else "%.9g",
        "inputs": program.inputs,
        "outputs": program.outputs,
        "work": 2 * _half(program) + _state(program),
        "labels": _labels(program),
        "named": int(bool(program.signature.feature_names)),
    }


def _half(program: Program) -> int:
    return max(math.prod(shape) for shape in program.shapes)


def _state(program: Program) -> int:
    return max((5 * o.width for o in program.operations if isinstance(o, Lstm)), default=0)


def _labels(program: Program) -> int:
    return 0 if program.signature.task == "regression" else program.signature.num_outputs


def _names(program: Program) -> str:
    """Texts as a program prints them: cells of CSV."""
    labels = [cell(program.label_of(i)) for i in range(_labels(program))] or ["prediction"]
    header = ",".join([*(["label"] if _labels(program) else []), *map(cell, column_names(program))])
    inputs = program.signature.feature_names or ("",)
    return "\n".join(
        [
            f"const char *const meadow_names[] = {{{', '.join(map(_text, inputs))}}};",
            f"const char *const meadow_labels[] = {{{', '.join(map(_text, labels))}}};",
            f"const char meadow_header[] = {_text(header)};",
            "" if _labels(program) else "#define meadow_label(output) 0",
        ]
    )


class _Printed:
    """The parts that differ from model to model, gathered operation by operation."""

    def __init__(self, program: Program) -> None:
        self.program, self.kernels, self.tables, self.calls = program, dict[str, None](), list[str](), list[str]()
        steps = [step for step in program.steps if not isinstance(step[0], Flatten)]
        given = "input"
        for i, (operation, shape, _) in enumerate(steps):
            made = "output" if i + 1 == len(steps) else ("work", f"work + {_half(program)}")[i % 2]
            self.calls.append(self.call(f"p{i}", operation, shape, given, made))
            given = made

    def predict(self) -> str:
        declared = "int meadow_predict(const real *input, real *output, real *work)"
        unused = [] if any("work" in call for call in self.calls) else ["(void)work;"]
        body = "\n".join(f"    {call}" for call in [*unused, *self.calls])
        return f"{declared};\n{declared}\n{{\n{body}\n    return 0;\n}}\n"

    def call(self, name: str, operation: object, shape: Shape, given: str, made: str) -> str:
        size = math.prod(shape)
        match operation:
            case Affine(weight=weight, bias=bias):
                self.kernels[c_parts.AFFINE] = None
                self.reals(name, weight=weight, bias=bias)
                m, n = weight.shape
                return f"affine({given}, {made}, {size // n}, {n}, {m}, {name}_weight, {name}_bias);"
            case Activation(function=function):
                parts = {"relu": ("relu", c_parts.RELU), "tanh": ("hyperbolic", c_parts.TANH)}
                called, source = parts.get(function, ("sigmoids", c_parts.SIGMOID + c_parts.SIGMOIDS))
                self.kernels[source] = None
                return f"{called}({given}, {made}, {size});"
            case Unit(factor=factor, shift=shift):
                self.kernels[c_parts.UNIT] = None
                return f"unit({given}, {made}, {size}, (real){_number(factor)}, (real){_number(shift)});"
            case Convolution(weight=weight, bias=bias, stride=stride, padding=padding):
                self.kernels[c_parts.CONVOLUTION] = None
                self.reals(name, weight=weight, bias=bias)
                self.whole(name, g=[*shape, *weight.shape[2:], *stride, *padding])
                return f"convolution({given}, {made}, {name}_g, {len(bias)}, {name}_weight, {name}_bias);"
            case MaxPool(window=window, stride=stride):
                self.kernels[c_parts.MAX_POOL] = None
                self.whole(name, g=[*shape, *window, *stride])
                return f"max_pool({given}, {made}, {name}_g);"
            case Embedding(table=table):
                self.kernels[c_parts.EMBEDDING] = None
                self.reals(name, table=table)
                tokens, width = table.shape
                call = f"embedding({given}, {made}, {size}, {tokens}, {width}, {name}_table)"
                return f"if ({call})\n        return -1;"
            case Lstm(from_input=first, from_state=second, bias=bias, width=width):
                self.kernels |= {c_parts.SIGMOID: None, c_parts.LSTM: None}
                self.reals(name, input=first, state=second, bias=bias)
                state, arrays = f"work + {2 * _half(self.program)}", f"{name}_input, {name}_state, {name}_bias"
                return f"lstm({given}, {made}, {state}, {shape[0]}, {first.shape[1]}, {width}, {arrays});"
            case Features(formulas=formulas):
                self.tables.append(_function(name, formulas))
                return f"{name}({given}, {made});"
            case Trees():
                return self.trees(name, operation, given, made)
        raise AssertionError(operation)

    def trees(self, name: str, operation: Trees, given: str, made: str) -> str:
        base = [0.0] * operation.zero_first + [operation.base] * operation.leaf.shape[1]
        starts = [f"({made})[{i}] = (real){_number(value)};" for i, value in enumerate(base)]
        if len(operation.roots):
            self.kernels[c_parts.TREES] = None
            names = ("roots", "feature", "left", "right", "default_left")
            arrays = {field: getattr(operation, field) for field in names}
            self.whole(name, **{n: a for n, a in arrays.items() if n != "default_left"})
            self.tables.append(_table("unsigned char", f"{name}_default_left", map(str, arrays["default_left"] + 0)))
            self.tables.append(_table("float", f"{name}_threshold", _reals(operation.threshold)))
            self.tables.append(_table("float", f"{name}_leaf", _reals(operation.leaf)))
            order = ("roots", "feature", "threshold", "left", "right", "default_left", "leaf")
            passed = ", ".join(f"{name}_{field}" for field in order)
            k, count = operation.leaf.shape[1], len(operation.roots)
            starts.append(f"trees({given}, {made} + {int(operation.zero_first)}, {k}, {count}, {passed});")
        return "\n    ".join(starts if len(operation.roots) else [f"(void){given};", *starts])

    def reals(self, name: str, **arrays: Array) -> None:
        self.tables += [_table("real", f"{name}_{field}", _reals(array)) for field, array in arrays.items()]

    def whole(self, name: str, **arrays: Any) -> None:
        self.tables += [_table("int", f"{name}_{field}", map(str, np.asarray(a))) for field, a in arrays.items()]


def _function(name: str, formulas: Formulas) -> str:
    lines = [
        f"    const {'int' if term.operation in CONDITIONS else 'double'} t{i} = {_expression(term)};"
        for i, term in enumerate(formulas.terms)
    ]
    lines += [f"    y[{i}] = (real)t{place};" for i, place in enumerate(formulas.outputs)]
    body = "\n".join(lines)
    return f"static void {name}(const real *x, real *y)\n{{\n{body}\n}}\n"


def _expression(term: Term) -> str:
    given = [f"t{place}" for place in term.arguments]
    match term.operation:
        case "input":
            return f"x[{int(term.value)}]"
        case "number":
            return _number(term.value)
        case "where":
            return f"{given[0]} ? {given[1]} : {given[2]}"
        case "floor" | "isnan":
            return f"{term.operation}({given[0]})" if term.operation == "floor" else f"isnan({given[0]}) != 0"
        case "not":
            return f"!{given[0]}"
        case "and" | "or":
            return (" && " if term.operation == "and" else " || ").join(given)
        case _:
            return f" {term.operation} ".join(given)


def _number(value: float) -> str:
    if math.isnan(value):
        return "NAN"
    if math.isinf(value):
        return "INFINITY" if value > 0 else "(-INFINITY)"
    return repr(value) if value >= 0 else f"({value!r})"


def _reals(array: Array) -> Iterator[str]:
    """The shortest digits that give the same bits."""
    suffix = "f" if array.dtype == np.float32 else ""
    return (text + suffix for text in np.ravel(array).astype(str).tolist())


def _table(kind: str, name: str, values: Iterator[str] | Sequence[str]) -> str:
    texts = list(values)
    lines = [", ".join(texts[i : i + 10]) for i in range(0, len(texts), 10)]
    body = ",\n    ".join(lines)
    return f"static const {kind} {name}[{len(texts)}] = {{\n    {body}}};"


def _text(value: str) -> str:
    """A C string; bytes that are not plain ASCII in octal, and ? too, which could begin a trigraph."""
    plain = {byte: chr(byte) for byte in range(32, 127) if chr(byte) not in '"\\?'}
    return '"' + "".join(plain.get(byte, f"\\{byte:03o}") for byte in value.encode()) + '"'
