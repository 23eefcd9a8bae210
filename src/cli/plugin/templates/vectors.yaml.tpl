# Questions, and the answers that this plugin shall give. `roster plugin test NAME.wasm` asks them; they travel in
# the component, and every upload asks them again. An answer is one of: allow, abstain, deny, {deny: text},
# {roles: [..]}, {fails: word}.
%% authorizer
- name: whoever is on probation may not publish
  authorize:
    subject: kim
    roles: [editor, probation]
    action: video.publish
    context: {question: permission, base: allow, now_ms: 1795392000000}
  expect: {deny: "on probation: ask an editor to publish this"}
- name: others may, if the rest of the policy agrees
  authorize: {subject: lee, roles: [editor], action: video.publish}
  expect: abstain
- name: other questions are none of its business
  authorize: {subject: kim, roles: [probation], action: GET, path: /videos/7}
  expect: abstain
%% role-mapper
- name: a group gives a role, and what the table gave stays
  map_roles:
    source: oidc
    subject: kim
    groups: [staff-editors]
    claims: {roster.roles: [viewer], org_code: acme}
  expect: {roles: [viewer, editor]}
- name: nothing is named twice
  map_roles: {source: oidc, groups: [staff-editors], claims: {roster.roles: [editor]}}
  expect: {roles: [editor]}
- name: other groups give nothing
  map_roles: {source: ldap, groups: [drivers]}
  expect: {roles: []}
%% end
