//! Reads the input of a dry run and fills in what is missing.

use serde_json::Value;

use crate::kernel::error::{Error, ErrorCode, Field, Result};
use crate::kernel::ids::{MemberId, OrganizationId, Timestamp};
use crate::kernel::sandbox::vectors::VectorInput;
use crate::kernel::sandbox::{AccessInput, Claim, RoleInput};

/// The caller's organization, its `org_code`, and the default subject.
pub type TrialCaller<'a> = (OrganizationId, &'a str, MemberId);

fn fact(name: &str, value: &str) -> Claim {
    Claim { name: name.to_owned(), values: vec![value.to_owned()] }
}

/// Fills in the tenant, the subject, `org_code` and `now_ms` if they are missing.
fn complete(tenant: &mut String, subject: &mut String, facts: &mut Vec<Claim>, caller: TrialCaller<'_>) {
    let (organization, org_code, member) = caller;
    if tenant.is_empty() {
        *tenant = organization.to_string();
    }
    if subject.is_empty() {
        *subject = member.to_string();
    }
    for (name, value) in [("org_code", org_code.to_owned()), ("now_ms", Timestamp::now().0.to_string())] {
        if !facts.iter().any(|known| known.name == name) {
            facts.push(fact(name, &value));
        }
    }
}

fn complete_access(input: &mut AccessInput, caller: TrialCaller<'_>) {
    complete(&mut input.tenant, &mut input.subject, &mut input.context, caller);
}

fn complete_role(input: &mut RoleInput, caller: TrialCaller<'_>) {
    complete(&mut input.tenant, &mut input.subject, &mut input.claims, caller);
}

/// Reads an input: `{action, …}` or `{source, …}`, or one of them under the name of its interface, as in a test vector.
/// Fails with `PluginInput`.
pub fn read(value: Value, caller: TrialCaller<'_>) -> Result<VectorInput> {
    let Value::Object(mut map) = value else { return Err(invalid_input(&[], "must be an object")) };
    let by_interface = (map.remove("authorize"), map.remove("map_roles"));
    if let (Some(_), _) | (_, Some(_)) = &by_interface
        && let Some(other) = map.keys().next()
    {
        return Err(invalid_input(&[other], "cannot be combined with `authorize` or `map_roles`"));
    }
    let request = match by_interface {
        (Some(_), Some(_)) => return Err(invalid_input(&["map_roles"], "cannot be combined with `authorize`")),
        (Some(input), None) => VectorInput::Authorize(parse(input, &["authorize"])?),
        (None, Some(input)) => VectorInput::MapRoles(parse(input, &["map_roles"])?),
        (None, None) if map.contains_key("source") && !map.contains_key("action") => {
            VectorInput::MapRoles(parse(Value::Object(map), &[])?)
        }
        (None, None) => VectorInput::Authorize(parse(Value::Object(map), &[])?),
    };
    Ok(match request {
        VectorInput::Authorize(mut input) => {
            complete_access(&mut input, caller);
            VectorInput::Authorize(input)
        }
        VectorInput::MapRoles(mut input) => {
            complete_role(&mut input, caller);
            VectorInput::MapRoles(input)
        }
    })
}

fn parse<T: serde::de::DeserializeOwned>(value: Value, path: &[&str]) -> Result<T> {
    serde_json::from_value(value).map_err(|e| {
        let error = e.to_string();
        // serde says `missing field `action`` or `unknown field `colour`, expected …`: the error names that field.
        let named = error.split('`').nth(1).filter(|_| error.contains(" field `")).map(str::to_owned);
        let path: Vec<&str> = path.iter().copied().chain(named.as_deref()).collect();
        let message = match &named {
            Some(_) if error.starts_with("missing") => "is missing",
            Some(_) if error.starts_with("unknown") => "is not a field of this input",
            _ => error.as_str(),
        };
        invalid_input(&path, message)
    })
}

/// A `PluginInput` error at this path in `input`.
pub fn invalid_input(path: &[&str], message: &str) -> Error {
    let location: Vec<&str> = ["body", "input"].iter().chain(path).copied().collect();
    Error { fields: vec![Field::at(&location, message)], ..Error::new(ErrorCode::PluginInput) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(value: Value) -> Result<VectorInput> {
        read(value, (OrganizationId::new(), "acme", MemberId::new()))
    }

    #[test]
    fn the_interface_follows_from_the_fields_or_is_named() {
        let VectorInput::Authorize(input) =
            parsed(json!({"action": "PUT", "context": {"now_ms": 7}})).expect("valid input")
        else {
            panic!("input for an authorizer")
        };
        assert_eq!(input.context.iter().find(|fact| fact.name == "now_ms").expect("now").values, ["7"]);
        assert_eq!((input.tenant.len(), input.subject.len()), (36, 36));
        assert!(matches!(parsed(json!({"source": "ldap", "groups": ["a"]})), Ok(VectorInput::MapRoles(_))));
        assert!(matches!(parsed(json!({"authorize": {"action": "x"}})), Ok(VectorInput::Authorize(_))));
        assert!(matches!(parsed(json!({"map_roles": {"source": "x"}})), Ok(VectorInput::MapRoles(_))));
    }

    #[test]
    fn faults_name_the_field_of_the_input() {
        let place = |value: Value| parsed(value).expect_err("refused").fields[0].location.join(".");
        assert_eq!(place(json!([])), "body.input");
        assert_eq!(place(json!({})), "body.input.action");
        assert_eq!(place(json!({"action": "x", "colour": 1})), "body.input.colour");
        assert_eq!(place(json!({"map_roles": {}})), "body.input.map_roles.source");
        assert_eq!(place(json!({"authorize": {"action": "x"}, "action": "x"})), "body.input.action");
        assert_eq!(place(json!({"action": 1})), "body.input");
    }
}
