// Gives roles by the claim `department` of a directory or an identity provider. Roles of the organization's mapping table
// stay. A member of several departments gets the roles of all of them.

const ROLES = {
  film: ["editor", "viewer"],
  legal: ["reviewer", "viewer"],
  front_desk: ["viewer"],
};

const valuesOf = (claims, name) => claims.filter((claim) => claim.name === name).flatMap((claim) => claim.values);

// "Front Desk" and "front-desk" are the same department.
const keyOf = (department) => department.trim().toLowerCase().replace(/[\s-]+/g, "_");

export const roleMapper = {
  mapRoles(input) {
    const departments = valuesOf(input.claims, "department").map(keyOf);
    // `Object.hasOwn`, so that a department called "constructor" matches nothing.
    const given = departments.flatMap((key) => (Object.hasOwn(ROLES, key) ? ROLES[key] : []));
    return [...new Set([...valuesOf(input.claims, "roster.roles"), ...given])];
  },
};
