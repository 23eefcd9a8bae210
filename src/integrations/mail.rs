//! Mail notifications: events that are sent to a member by mail.
//!
//! **Invariant.** Events contain no secrets. A link is created just before its mail is sent, and the previous link
//! becomes invalid: a mail that is sent twice or a day late still contains a working link.

use serde_json::Value;

use crate::features::members::{self, Member};
use crate::features::sessions::passwords;
use crate::kernel::app::App;
use crate::kernel::config::Config;
use crate::kernel::error::Result;
use crate::kernel::ids::MemberId;
use crate::kernel::outbound::connection::{Connection, ConnectionFailure, ConnectionKind};
use crate::kernel::outbound::mail::{self, Mail};
use crate::kernel::outbox::EventKind;
use crate::kernel::outbox::delivery::{Delivery, DeliveryOutcome};

/// The connection, as the settings describe it.
pub fn connection(config: &Config) -> Connection {
    let address = match mail::is_configured(config) {
        true => format!("{}:{}", config.mail_host, config.mail_port),
        false => String::new(),
    };
    Connection::new(mail::NAME, ConnectionKind::Mail, address)
        .setting("mail.host", !config.mail_host.is_empty())
        .setting("mail.port", true)
        .setting("mail.security", true)
        .setting("mail.username", !config.mail_username.is_empty())
        .setting("mail.password_file", config.mail_password.is_some())
        .setting("mail.ca_file", !config.mail_ca_file.as_os_str().is_empty())
        .setting("mail.from", !config.mail_from.is_empty())
}

/// Tests the connection without sending a mail.
pub async fn test(app: &App) -> Result<(), ConnectionFailure> {
    mail::probe(&app.config).await
}

/// Sends the mail of an event to the member it is about.
pub async fn deliver(app: &App, id: MemberId, delivery: &Delivery) -> Result<DeliveryOutcome> {
    if !mail::is_configured(&app.config) {
        return Ok(DeliveryOutcome::TargetGone("mail is switched off: set mail.host".into()));
    }
    let Some(member) = app.read(move |r| members::find(r, id)).await?.filter(Member::is_active) else {
        return Ok(DeliveryOutcome::Skipped("the member is not active"));
    };
    let Some(to) = member.email else { return Ok(DeliveryOutcome::Skipped("the member has no e-mail")) };
    let Some(mail) = write(app, id, to, delivery).await? else {
        return Ok(DeliveryOutcome::Skipped("no mail is sent for this event, or its creator lacks the right now"));
    };
    Ok(match mail::deliver(&app.outbound, &app.config, mail).await {
        Ok(()) => DeliveryOutcome::Delivered,
        Err(e) if e.is_final => DeliveryOutcome::PermanentFailure(e.why),
        Err(e) => DeliveryOutcome::failed(e.why),
    })
}

async fn write(app: &App, id: MemberId, to: String, delivery: &Delivery) -> Result<Option<Mail>> {
    let site = app.public_url();
    let writer = mail::writer(&app.config, &site);
    Ok(match delivery.kind {
        EventKind::QuotaWarning => {
            let data: Value = serde_json::from_str(&delivery.data).unwrap_or_default();
            let number = |name: &str| data[name].as_u64().unwrap_or_default();
            Some(writer.quota_warning(id, to, number("percent"), number("used"), number("size")))
        }
        EventKind::MemberWelcomed => {
            // New members may read their mail later than members who requested a reset link.
            let (ttl_s, maker) = (app.config.invitation_ttl_s, Some(delivery.maker.clone()));
            let url = passwords::create_mail_link(app, id, ttl_s, maker).await?;
            url.map(|url| writer.welcome(id, to, &url, ttl_s))
        }
        EventKind::PasswordForgotten => {
            let ttl_s = app.config.reset_link_ttl_s;
            let url = passwords::create_mail_link(app, id, ttl_s, None).await?;
            url.map(|url| writer.password_link(id, to, &url, ttl_s))
        }
        _ => None,
    })
}
