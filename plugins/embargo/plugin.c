/* Denies publishing a video before the end of its embargo. The caller gives that time in the fact `embargo_until_ms`
 * (Unix milliseconds); the current time is the host's fact `now_ms`. */
#include "authorizer_plugin.h"
#include <stdlib.h>
#include <string.h>

typedef authorizer_plugin_string_t text;

static bool is(const text *given, const char *other) {
  return given->len == strlen(other) && memcmp(given->ptr, other, given->len) == 0;
}

/* The values of a fact; NULL if it was not given. */
static const authorizer_plugin_list_string_t *fact(const roster_policy_types_list_claim_t *facts, const char *name) {
  for (size_t n = 0; n < facts->len; n++)
    if (is(&facts->ptr[n].name, name)) return &facts->ptr[n].values;
  return NULL;
}

/* Parses a time of at most 15 digits, which reaches the year 33658. */
static bool time_of(const authorizer_plugin_list_string_t *values, uint64_t *ms) {
  if (values == NULL || values->len != 1 || values->ptr[0].len < 1 || values->ptr[0].len > 15) return false;
  *ms = 0;
  for (size_t n = 0; n < values->ptr[0].len; n++) {
    uint8_t digit = values->ptr[0].ptr[n];
    if (digit < '0' || digit > '9') return false;
    *ms = *ms * 10 + (digit - '0');
  }
  return true;
}

static bool cannot_answer(exports_roster_policy_authorizer_rule_error_t *error, const char *code, const char *message) {
  authorizer_plugin_string_dup(&error->code, code);
  authorizer_plugin_string_dup(&error->message, message);
  return false;
}

bool exports_roster_policy_authorizer_authorize(exports_roster_policy_authorizer_access_input_t *input,
                                                exports_roster_policy_authorizer_decision_t *answer,
                                                exports_roster_policy_authorizer_rule_error_t *error) {
  answer->tag = ROSTER_POLICY_TYPES_DECISION_ABSTAIN;
  const authorizer_plugin_list_string_t *until = fact(&input->context, "embargo_until_ms");
  if (!is(&input->action, "video.publish") || until == NULL) return true;

  uint64_t until_ms, now_ms;
  if (!time_of(until, &until_ms)) return cannot_answer(error, "bad_fact", "`embargo_until_ms` is no time");
  if (!time_of(fact(&input->context, "now_ms"), &now_ms)) return cannot_answer(error, "no_time", "`now_ms` is no time");
  if (now_ms < until_ms) {
    answer->tag = ROSTER_POLICY_TYPES_DECISION_DENY;
    authorizer_plugin_string_dup(&answer->val.deny, "this video is under embargo");
  }
  return true;
}
