//! Sign-in with a WordPress account.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::features::members::{self, WORDPRESS};
use crate::features::permissions::Source;
use crate::features::permissions::mappers::SourceFacts;
use crate::features::permissions::role_claims::is_key;
use crate::features::sessions::jit_provisioning::{ExternalUser, provision};
use crate::features::sessions::{Tokens, VerifiedFactors, consume_once, open_session};
use crate::integrations::wordpress::{WordPressUser, authenticate, read_ticket};
use crate::kernel::app::App;
use crate::kernel::authn::caller::Visitor;
use crate::kernel::authn::login_throttle::Attempt;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::Timestamp;

/// The maximum number of concurrent credential checks at WordPress.
const CONCURRENT_MAX: usize = 4;
static PERMITS: Semaphore = Semaphore::const_new(CONCURRENT_MAX);

/// Signs in with a username (or e-mail) of the site and an application password.
pub async fn sign_in(app: &Arc<App>, visitor: &Visitor, login: &str, application_password: &str) -> Result<Tokens> {
    if app.config.wordpress_url.is_empty() {
        return Err(ErrorCode::WordPressNotConfigured.into());
    }
    let folded = members::folded(login);
    // WordPress accounts are separate from local ones, so their failures are counted separately.
    let attempt = Attempt::new(&format!("{WORDPRESS} {folded}"), visitor.context.address);
    app.guard.login_throttle.check(attempt, false, Timestamp::now())?;
    // Limited concurrency: parallel guesses must wait for the results of earlier ones, which are counted.
    let permit = PERMITS.acquire().await;
    app.guard.login_throttle.check(attempt, false, Timestamp::now())?;
    let person = authenticate(app, login, application_password).await?;
    drop(permit);
    let Some(person) = person else {
        app.guard.login_throttle.record_failure(attempt, Timestamp::now());
        return Err(ErrorCode::InvalidLogin.into());
    };
    let tokens = provision_and_open(app, visitor, person).await?;
    app.guard.login_throttle.record_success(attempt);
    Ok(tokens)
}

/// Signs in with a ticket of the must-use plugin, which can be used once.
pub async fn sign_in_with_ticket(app: &Arc<App>, visitor: &Visitor, ticket: &str) -> Result<Tokens> {
    let site = app.config.wordpress_url.as_str();
    let Some(key) = app.config.wordpress_ticket_secret.as_deref().filter(|_| !site.is_empty()) else {
        let message = "set wordpress.url and wordpress.ticket_secret_file to sign in with a ticket";
        return Err(Error::new(ErrorCode::WordPressNotConfigured).with_message(message));
    };
    let ticket = read_ticket(ticket, site, key, Timestamp::now()).ok_or(ErrorCode::InvalidTicket)?;
    let (mark, until) = (ticket.mark, ticket.until);
    if !app.write_unaudited(move |w| consume_once(w, &mark, until)).await? {
        return Err(ErrorCode::InvalidTicket.into());
    }
    provision_and_open(app, visitor, ticket.person).await
}

async fn provision_and_open(app: &Arc<App>, visitor: &Visitor, person: WordPressUser) -> Result<Tokens> {
    let member = provision(app, &visitor.context, external_user_of(app, person)).await?;
    open_session(app, visitor, member, WORDPRESS, VerifiedFactors::OneFactor).await
}

fn valid_keys(roles: BTreeSet<String>) -> BTreeSet<String> {
    roles.into_iter().filter(|role| is_key(role)).collect()
}

/// The WordPress user as an external user for provisioning.
pub fn external_user_of(app: &App, person: WordPressUser) -> ExternalUser {
    let organization = Some(app.config.wordpress_organization.clone()).filter(|org_code| !org_code.is_empty());
    let subject = person.id.to_string();
    let roles = person.roles.as_ref().map(|roles| ("roles".to_owned(), roles.iter().cloned().collect()));
    let claims = std::iter::once(("sub".to_owned(), vec![subject.clone()])).chain(roles);
    let facts = SourceFacts::of(claims);
    ExternalUser {
        provider: WORDPRESS.into(),
        subject,
        // WordPress logins never change.
        account_id: Some(person.login.clone()),
        username: Some(person.login),
        // WordPress's REST API changes an e-mail without confirmation, so it only fills a gap and never identifies a
        // member.
        email: Some(person.email),
        display_name: Some(person.name),
        organization,
        // If the roles are not known, the existing assignments stay.
        keys: person.roles.map(|roles| (Source::Wordpress, valid_keys(roles))).into_iter().collect(),
        facts,
    }
}
