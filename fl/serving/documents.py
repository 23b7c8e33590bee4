"""What the OpenAPI page says of bodies that are read by hand."""

from __future__ import annotations

from typing import Any

from fl.serving.tensors import DTYPES

_NUMBERS: dict[str, Any] = {"type": "array", "items": {}}
_OBJECT: dict[str, Any] = {"type": "object"}
_ERROR = {"application/json": {"schema": {"type": "object", "properties": {"error": {"type": "string"}}}}}

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "What was asked cannot be answered, and why", "content": _ERROR},
    401: {"description": "No token of this server", "content": _ERROR},
    404: {"description": "No such model, version, release or request", "content": _ERROR},
    409: {"description": "It had its feedback already", "content": _ERROR},
    408: {"description": "The body did not come in time", "content": _ERROR},
    413: {"description": "The body is too large", "content": _ERROR},
    429: {"description": "The queue is full: again after Retry-After", "content": _ERROR},
    503: {"description": "Not ready, or ending: again after Retry-After", "content": _ERROR},
}

INFER: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["inputs"],
                    "properties": {
                        "id": {"type": "string"},
                        "parameters": _OBJECT,
                        "inputs": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": ["name", "shape", "datatype", "data"],
                                "properties": {
                                    "name": {"type": "string", "enum": ["input"]},
                                    "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                                    "datatype": {"type": "string", "enum": list(DTYPES)},
                                    "data": _NUMBERS,
                                    "parameters": _OBJECT,
                                },
                            },
                        },
                        "outputs": {"type": "array", "items": _OBJECT},
                    },
                }
            }
        },
    }
}

PREDICT: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["rows"],
                    "additionalProperties": False,
                    "properties": {
                        "rows": {
                            "type": "array",
                            "minItems": 1,
                            "items": {
                                "anyOf": [
                                    {"type": "object", "additionalProperties": {"type": ["number", "null"]}},
                                    {"type": "array", "items": {}},
                                ]
                            },
                        }
                    },
                }
            }
        },
    }
}

FEEDBACK: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["id"],
                    "additionalProperties": False,
                    "properties": {
                        "id": {"type": "string", "description": "X-Request-Id of the answer"},
                        "reward": {"type": "number", "minimum": 0, "maximum": 1},
                        "label": {"description": "The right label, or one a row"},
                    },
                }
            }
        },
    }
}
