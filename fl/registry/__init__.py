"""Versions of the global model: parameters under their content hash, manifests with a lineage, movable aliases."""

from fl.registry.difference import Difference as Difference
from fl.registry.integrity import Problem as Problem
from fl.registry.provenance import code_state as code_state
from fl.registry.registry import Registry as Registry
from fl.registry.retention import keep_rule as keep_rule
from fl.registry.versions import Version as Version
