// A Roster plugin. wit/policy.wit defines the interface and its terms: names are in camelCase here, a variant is
// {tag, val}, and an error is a thrown {code, message}. There is no clock, no network and no randomness.
%% authorizer

export const authorizer = {
  authorize(input) {
    if (input.action === "video.publish" && input.roles.includes("probation")) {
      return { tag: "deny", val: "on probation: ask an editor to publish this" };
    }
    return { tag: "abstain" };
  },
};
%% role-mapper

export const roleMapper = {
  mapRoles(input) {
    // The roles so far. A role that is missing in the result is revoked.
    const roles = new Set(input.claims.find((claim) => claim.name === "roster.roles")?.values);
    if (input.groups.includes("staff-editors")) roles.add("editor");
    return [...roles];
  },
};
%% end
