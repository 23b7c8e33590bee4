"""Values as TensorBoard's plugins read them: numbers, histograms, pictures, text, hyperparameters, chart layouts.

Numbers, histograms and pictures have the form that every reader of event files understands, old ones included.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary, SummaryMetadata
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalar_metadata
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.util import tensor_util

Value: TypeAlias = Any
"""A tensorboard Summary.Value."""

Hyperparameter: TypeAlias = bool | float | str

MAX_BUCKETS = 20


def scalar(tag: str, number: float, *, description: str = "") -> Value:
    """A number; ``description`` (Markdown) is shown beside its chart."""
    metadata = SummaryMetadata(summary_description=description) if description else None
    return Summary.Value(tag=tag, simple_value=number, metadata=metadata)


def histogram(tag: str, numbers: Sequence[float], *, description: str = "") -> Value:
    """How ``numbers`` (one or more, finite) are spread, in buckets of equal width from the least to the largest."""
    least, most = min(numbers), max(numbers)
    width = (most - least) / MAX_BUCKETS
    counts = [0] * (MAX_BUCKETS if width > 0 else 1)
    for number in numbers:  # in every round, of few numbers: NumPy takes longer to begin than this to end
        counts[min(int((number - least) / width), MAX_BUCKETS - 1) if width > 0 else 0] += 1
    limits = [least + width * (i + 1) for i in range(MAX_BUCKETS - 1)] if width > 0 else []
    proto = HistogramProto(
        min=least,
        max=most,
        num=len(numbers),
        sum=math.fsum(numbers),
        sum_squares=math.fsum(number * number for number in numbers),
        bucket_limit=[*limits, most],
        bucket=counts,
    )
    return Summary.Value(tag=tag, histo=proto, metadata=SummaryMetadata(summary_description=description))


def picture(tag: str, png: bytes, *, description: str = "") -> Value:
    """A PNG image."""
    width, height = struct.unpack(">II", png[16:24])
    image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=png)
    return Summary.Value(tag=tag, image=image, metadata=SummaryMetadata(summary_description=description))


def text(tag: str, markdown: str, *, description: str = "") -> Value:
    """Text in Markdown."""
    metadata = text_metadata.create_summary_metadata(display_name=tag, description=description)
    tensor = tensor_util.make_tensor_proto(np.asarray([markdown.encode()], dtype=object))
    return Summary.Value(tag=tag, metadata=metadata, tensor=tensor)


def experiment(
    hyperparameters: Mapping[str, Hyperparameter], *, first: Collection[str], metrics: Mapping[str, str]
) -> Value:
    """Which hyperparameters and which scalars (tag -> name shown) the columns of the HParams tab are.

    TensorBoard shows five hyperparameters until others are ticked: those that differ, in order of their names, then
    the others. One run cannot know which differ, so ``first`` is said to.
    """
    described = [
        api_pb2.HParamInfo(name=name, type=_hparam_type(value), differs=name in first)
        for name, value in sorted(hyperparameters.items())
    ]
    measured = [
        api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=name) for tag, name in metrics.items()
    ]
    content = api_pb2.Experiment(hparam_infos=described, metric_infos=measured, time_created_secs=time.time())
    return _hparams(hparams_metadata.EXPERIMENT_TAG, plugin_data_pb2.HParamsPluginData(experiment=content))


def session_start(hyperparameters: Mapping[str, Hyperparameter], *, group: str) -> Value:
    """The run's row in the HParams tab."""
    content = plugin_data_pb2.SessionStartInfo(group_name=group, start_time_secs=time.time())
    for name, value in hyperparameters.items():
        if isinstance(value, bool):
            content.hparams[name].bool_value = value
        elif isinstance(value, str):
            content.hparams[name].string_value = value
        else:
            content.hparams[name].number_value = value
    return _hparams(
        hparams_metadata.SESSION_START_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_start_info=content)
    )


def session_end(*, succeeded: bool | None) -> Value:
    """The run is over; ``succeeded`` None: neither a success nor a failure."""
    status = {
        True: api_pb2.STATUS_SUCCESS,
        False: api_pb2.STATUS_FAILURE,
        None: api_pb2.STATUS_UNKNOWN,
    }[succeeded]
    content = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    return _hparams(hparams_metadata.SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=content))


def layout(charts: Mapping[str, Mapping[str, Sequence[str]]]) -> Value:
    """Charts of the Custom Scalars tab: category -> title -> patterns of the tags drawn into one chart."""
    categories = [
        layout_pb2.Category(
            title=category,
            chart=[
                layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=tags))
                for title, tags in titles.items()
            ],
        )
        for category, titles in charts.items()
    ]
    tensor = tensor_util.make_tensor_proto(layout_pb2.Layout(category=categories).SerializeToString())
    metadata = custom_scalar_metadata.create_summary_metadata()
    return Summary.Value(tag=custom_scalar_metadata.CONFIG_SUMMARY_TAG, metadata=metadata, tensor=tensor)


def _hparams(tag: str, content: Any) -> Value:
    metadata = hparams_metadata.create_summary_metadata(content)
    return Summary.Value(tag=tag, metadata=metadata, tensor=hparams_metadata.NULL_TENSOR)


def _hparam_type(value: Hyperparameter) -> Any:
    if isinstance(value, bool):
        return api_pb2.DATA_TYPE_BOOL
    return api_pb2.DATA_TYPE_STRING if isinstance(value, str) else api_pb2.DATA_TYPE_FLOAT64
