// Gives roles by the claim `department`, as a directory or an identity provider sends it. What the organization's table
// of groups gave stays; somebody of several departments has the roles of all of them.

const ROLES = {
  film: ["editor", "viewer"],
  legal: ["reviewer", "viewer"],
  front_desk: ["viewer"],
};

const valuesOf = (claims, name) => claims.filter((claim) => claim.name === name).flatMap((claim) => claim.values);

// "Front Desk" and "front-desk" are one department.
const keyOf = (department) => department.trim().toLowerCase().replace(/[\s-]+/g, "_");

export const roleMapper = {
  mapRoles(input) {
    const departments = valuesOf(input.claims, "department").map(keyOf);
    // `Object.hasOwn`: a department called "constructor" is none of ours.
    const given = departments.flatMap((key) => (Object.hasOwn(ROLES, key) ? ROLES[key] : []));
    return [...new Set([...valuesOf(input.claims, "roster.roles"), ...given])];
  },
};
