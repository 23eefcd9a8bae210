/* A Roster plugin. wit/policy.wit defines the interface; `wit-bindgen c` generated gen/ from it.
 * Standard input and output, clocks and random numbers import WASI, which is not available to plugins. */
#include "gen/WORLD_.h"
#include <stdlib.h>
#include <string.h>

static bool is(const WORLD__string_t *text, const char *other) {
  return text->len == strlen(other) && memcmp(text->ptr, other, text->len) == 0;
}

static bool holds(const WORLD__list_string_t *list, const char *other) {
  for (size_t n = 0; n < list->len; n++)
    if (is(&list->ptr[n], other)) return true;
  return false;
}
%% authorizer

bool exports_roster_policy_authorizer_authorize(exports_roster_policy_authorizer_access_input_t *input,
                                                exports_roster_policy_authorizer_decision_t *answer,
                                                exports_roster_policy_authorizer_rule_error_t *error) {
  (void)error;
  answer->tag = ROSTER_POLICY_TYPES_DECISION_ABSTAIN;
  if (is(&input->action, "video.publish") && holds(&input->roles, "probation")) {
    answer->tag = ROSTER_POLICY_TYPES_DECISION_DENY;
    WORLD__string_dup(&answer->val.deny, "on probation: ask an editor to publish this");
  }
  return true; /* false when it cannot answer, with *error filled in */
}
%% role-mapper

bool exports_roster_policy_role_mapper_map_roles(exports_roster_policy_role_mapper_role_input_t *input,
                                                 WORLD__list_string_t *answer,
                                                 exports_roster_policy_role_mapper_rule_error_t *error) {
  (void)error;
  /* The roles so far, with space for one more. A role that is missing in the result is revoked. */
  WORLD__list_string_t so_far = {NULL, 0};
  for (size_t n = 0; n < input->claims.len; n++)
    if (is(&input->claims.ptr[n].name, "roster.roles")) so_far = input->claims.ptr[n].values;
  answer->ptr = malloc((so_far.len + 1) * sizeof *answer->ptr);
  answer->len = so_far.len;
  if (so_far.len > 0) memcpy(answer->ptr, so_far.ptr, so_far.len * sizeof *answer->ptr);
  if (holds(&input->groups, "staff-editors") && !holds(&so_far, "editor"))
    WORLD__string_dup(&answer->ptr[answer->len++], "editor");
  return true; /* false when it cannot answer, with *error filled in */
}
%% end
