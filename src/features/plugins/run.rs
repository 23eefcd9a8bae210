//! Questions that are asked without effect: what they are when little is given, and how they are read.

use serde_json::Value;

use crate::kernel::error::{Error, ErrorCode, Field, Result};
use crate::kernel::ids::{MemberId, OrganizationId, Timestamp};
use crate::kernel::sandbox::vectors::Ask;
use crate::kernel::sandbox::{AccessInput, Claim, RoleInput};

/// Where a question is asked, and about whom when it does not say.
pub type OnBehalfOf<'a> = (OrganizationId, &'a str, MemberId);

fn fact(name: &str, value: &str) -> Claim {
    Claim { name: name.to_owned(), values: vec![value.to_owned()] }
}

/// What every question has, unless it was given.
fn complete(tenant: &mut String, subject: &mut String, facts: &mut Vec<Claim>, asker: OnBehalfOf<'_>) {
    let (organization, org_code, member) = asker;
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

fn complete_access(input: &mut AccessInput, asker: OnBehalfOf<'_>) {
    complete(&mut input.tenant, &mut input.subject, &mut input.context, asker);
}

fn complete_role(input: &mut RoleInput, asker: OnBehalfOf<'_>) {
    complete(&mut input.tenant, &mut input.subject, &mut input.claims, asker);
}

/// Reads a question: `{action, …}` or `{source, …}`, or one of them under the name of its interface, as in a test vector.
pub fn read(value: Value, asker: OnBehalfOf<'_>) -> Result<Ask> {
    let Value::Object(mut map) = value else { return Err(refused(&[], "must be an object")) };
    let by_interface = (map.remove("authorize"), map.remove("map_roles"));
    if let (Some(_), _) | (_, Some(_)) = &by_interface
        && let Some(other) = map.keys().next()
    {
        return Err(refused(&[other], "is not a field beside the interface that is asked"));
    }
    let asked = match by_interface {
        (Some(_), Some(_)) => return Err(refused(&["map_roles"], "goes without `authorize`: one question at a time")),
        (Some(input), None) => Ask::Authorize(parse(input, &["authorize"])?),
        (None, Some(input)) => Ask::MapRoles(parse(input, &["map_roles"])?),
        (None, None) if map.contains_key("source") && !map.contains_key("action") => {
            Ask::MapRoles(parse(Value::Object(map), &[])?)
        }
        (None, None) => Ask::Authorize(parse(Value::Object(map), &[])?),
    };
    Ok(match asked {
        Ask::Authorize(mut input) => {
            complete_access(&mut input, asker);
            Ask::Authorize(input)
        }
        Ask::MapRoles(mut input) => {
            complete_role(&mut input, asker);
            Ask::MapRoles(input)
        }
    })
}

fn parse<T: serde::de::DeserializeOwned>(value: Value, place: &[&str]) -> Result<T> {
    serde_json::from_value(value).map_err(|e| {
        let said = e.to_string();
        // `missing field `action``, `unknown field `colour`, expected …`: the name is where it stands.
        let named = said.split('`').nth(1).filter(|_| said.contains(" field `")).map(str::to_owned);
        let place: Vec<&str> = place.iter().copied().chain(named.as_deref()).collect();
        let message = match &named {
            Some(_) if said.starts_with("missing") => "is missing",
            Some(_) if said.starts_with("unknown") => "is not a field of a question",
            _ => said.as_str(),
        };
        refused(&place, message)
    })
}

/// An input that cannot be used.
pub fn refused(place: &[&str], message: &str) -> Error {
    let location: Vec<&str> = ["body", "input"].iter().chain(place).copied().collect();
    Error { fields: vec![Field::at(&location, message)], ..Error::new(ErrorCode::PluginInput) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked(value: Value) -> Result<Ask> {
        read(value, (OrganizationId::new(), "acme", MemberId::new()))
    }

    #[test]
    fn a_question_is_known_by_its_fields_or_by_its_interface() {
        let Ask::Authorize(input) = asked(json!({"action": "PUT", "context": {"now_ms": 7}})).expect("a question")
        else {
            panic!("a question for an authorizer")
        };
        assert_eq!(input.context.iter().find(|fact| fact.name == "now_ms").expect("now").values, ["7"]);
        assert_eq!((input.tenant.len(), input.subject.len()), (36, 36));
        assert!(matches!(asked(json!({"source": "ldap", "groups": ["a"]})), Ok(Ask::MapRoles(_))));
        assert!(matches!(asked(json!({"authorize": {"action": "x"}})), Ok(Ask::Authorize(_))));
        assert!(matches!(asked(json!({"map_roles": {"source": "x"}})), Ok(Ask::MapRoles(_))));
    }

    #[test]
    fn what_is_wrong_with_a_question_is_said_where_it_stands() {
        let place = |value: Value| asked(value).expect_err("refused").fields[0].location.join(".");
        assert_eq!(place(json!([])), "body.input");
        assert_eq!(place(json!({})), "body.input.action");
        assert_eq!(place(json!({"action": "x", "colour": 1})), "body.input.colour");
        assert_eq!(place(json!({"map_roles": {}})), "body.input.map_roles.source");
        assert_eq!(place(json!({"authorize": {"action": "x"}, "action": "x"})), "body.input.action");
        assert_eq!(place(json!({"action": 1})), "body.input");
    }
}
