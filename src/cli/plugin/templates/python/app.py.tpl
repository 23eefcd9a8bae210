"""A Roster plugin. wit/policy.wit defines the interface and its terms: names are in snake_case here, a variant is a
class per case, and an error is a raised Err(RuleError(code, message)). There is no clock and no network; `random` gives
the same numbers in every call."""
from wit_world import exports
%% authorizer
from wit_world.imports.types import Decision_Abstain, Decision_Deny
%% end
%% authorizer


class Authorizer(exports.Authorizer):
    def authorize(self, input):
        if input.action == "video.publish" and "probation" in input.roles:
            return Decision_Deny("on probation: ask an editor to publish this")
        return Decision_Abstain()
%% role-mapper


class RoleMapper(exports.RoleMapper):
    def map_roles(self, input):
        # The roles so far. A role that is missing in the result is revoked.
        roles = [role for claim in input.claims if claim.name == "roster.roles" for role in claim.values]
        if "staff-editors" in input.groups and "editor" not in roles:
            roles.append("editor")
        return roles
%% end
