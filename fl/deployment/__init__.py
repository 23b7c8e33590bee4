"""Release policies: pure functions from what was counted to a Decision. They act on nothing; a router does."""

from fl.deployment.policies import POLICIES as POLICIES
from fl.deployment.policies import checked_options as checked_options
from fl.deployment.policies import policy_for as policy_for
