# Test vectors: inputs and the results that this plugin must return. `roster plugin test NAME.wasm` runs them. They are
# stored in the component, and every upload runs them again. A result is one of: allow, abstain, deny, {deny: text},
# {roles: [..]}, {fails: word}.
%% authorizer
- name: a member on probation cannot publish
  authorize:
    subject: kim
    roles: [editor, probation]
    action: video.publish
    context: {question: permission, base: allow, now_ms: 1795392000000}
  expect: {deny: "on probation: ask an editor to publish this"}
- name: for other members the rest of the policy decides
  authorize: {subject: lee, roles: [editor], action: video.publish}
  expect: abstain
- name: the plugin abstains from other access requests
  authorize: {subject: kim, roles: [probation], action: GET, path: /videos/7}
  expect: abstain
%% role-mapper
- name: a group gives a role, and roles of the mapping table stay
  map_roles:
    source: oidc
    subject: kim
    groups: [staff-editors]
    claims: {roster.roles: [viewer], org_code: acme}
  expect: {roles: [viewer, editor]}
- name: no role is returned twice
  map_roles: {source: oidc, groups: [staff-editors], claims: {roster.roles: [editor]}}
  expect: {roles: [editor]}
- name: other groups give nothing
  map_roles: {source: ldap, groups: [drivers]}
  expect: {roles: []}
%% end
