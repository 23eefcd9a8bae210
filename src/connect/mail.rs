//! Mail over SMTP. The only user of lettre.
//!
//! A text holds what its reader needs and nothing that a stranger could have written: no names, only our own sentences,
//! the site's address, and a link or a code. Addresses go through the library's parser, so that none can add a header.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use tokio::sync::Semaphore;

use crate::config::{Config, MailSecurity};
use crate::error::{Error, Result};
use crate::ids::MemberId;

/// A text for one member.
#[derive(Debug)]
pub struct Mail {
    member: MemberId,
    to: String,
    subject: String,
    text: String,
}

impl Mail {
    /// A link with which the member sets a new password.
    pub fn password_link(member: MemberId, to: String, site: &str, url: &str, ttl_s: u64) -> Self {
        let text = format!(
            "Hello,\n\nsomebody asked for a new password for your account at {site}.\n\n\
             Set it here, within {}:\n\n{url}\n\n\
             The link works once. If it was not you who asked, do nothing: your password stays as it is.\n",
            in_words(ttl_s)
        );
        Self { member, to, subject: "Your new password".into(), text }
    }

    /// The code that proves the e-mail of a registration.
    pub fn email_code(member: MemberId, to: String, site: &str, code: &str, ttl_s: u64) -> Self {
        let text = format!(
            "Hello,\n\nsomebody, you as we hope, registers with this e-mail at {site}.\n\n\
             The code is {code}\n\nIt is good for {}. If it was not you who registers, tell it nobody and do nothing: \
             the registration is forgotten.\n",
            in_words(ttl_s)
        );
        Self { member, to, subject: "Your code to register".into(), text }
    }

    /// Tells a member that one of the member's API keys ends soon.
    pub fn key_ends(member: MemberId, to: String, site: &str, key: &str, in_s: u64) -> Self {
        let text = format!(
            "Hello,\n\nyour API key {key} at {site} ends in {}.\n\n\
             Rotate it before: the former key then works on for a while. If you need it no more, there is nothing to do.\n",
            in_words(in_s)
        );
        Self { member, to, subject: "Your API key ends soon".into(), text }
    }

    /// Tells a member that somebody tried to register with the member's e-mail.
    pub fn known_already(member: MemberId, to: String, site: &str) -> Self {
        let text = format!(
            "Hello,\n\nsomebody tried to register with this e-mail at {site}, but you have an account there already.\n\n\
             If it was you, sign in, or ask for a new password. If it was not, there is nothing to do: nothing changed.\n"
        );
        Self { member, to, subject: "You have an account already".into(), text }
    }
}

fn in_words(seconds: u64) -> String {
    match (seconds, seconds.div_ceil(60), seconds.div_ceil(3_600)) {
        (..120, ..) => format!("{seconds} seconds"),
        (_, minutes @ ..120, _) => format!("{minutes} minutes"),
        (.., hours) => format!("{hours} hours"),
    }
}

/// Can mail be sent?
pub fn is_configured(config: &Config) -> bool {
    !config.mail_host.is_empty()
}

/// What of the settings this wing alone understands.
pub fn faults(config: &Config) -> Vec<String> {
    if !is_configured(config) {
        return Vec::new();
    }
    let sender = sender(config).err().map(|_| format!("mail.from: {:?} is no address", config.mail_from));
    let transport = transport(config).err().map(|e| e.source.unwrap_or_default().into_owned());
    sender.into_iter().chain(transport).collect()
}

/// Mails at a time, and mails that wait for their turn.
const AT_ONCE_MAX: usize = 4;
const WAITING_MAX: usize = 1_000;
static TURNS: Semaphore = Semaphore::const_new(AT_ONCE_MAX);
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Delivers a mail to the SMTP server. Whoever asked for it was answered already, so that a failure is for the log.
pub async fn send(config: &Config, mail: Mail) {
    let member = mail.member;
    if WAITING.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
        WAITING.fetch_sub(1, Ordering::Relaxed);
        tracing::warn!(%member, "a mail was dropped: too many wait already");
        return;
    }
    let turn = TURNS.acquire().await;
    let delivered = deliver(config, mail).await;
    drop(turn);
    WAITING.fetch_sub(1, Ordering::Relaxed);
    match delivered {
        Ok(()) => tracing::debug!(%member, "a mail was handed over"),
        Err(e) => tracing::warn!(%member, why = e.source.as_deref().unwrap_or_default(), "a mail was not delivered"),
    }
}

async fn deliver(config: &Config, mail: Mail) -> Result<()> {
    /// Steps of a delivery, each of which may take as long as a request to a neighbour.
    const STEPS: u32 = 8;
    let to: Address = mail.to.parse().map_err(|_| failed("the member's e-mail is no address that mail can go to"))?;
    let message = Message::builder()
        .from(sender(config)?)
        .to(Mailbox::new(None, to))
        .subject(mail.subject)
        .header(ContentType::TEXT_PLAIN)
        .body(mail.text)
        .map_err(|e| failed(format!("it cannot be written: {e}")))?;
    let transport = transport(config)?;
    match tokio::time::timeout(wait(config) * STEPS, transport.send(message)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) => Err(failed(explained(&e))),
        Err(_) => Err(failed("the server took too long")),
    }
}

fn wait(config: &Config) -> Duration {
    Duration::from_millis(config.neighbour_timeout_ms)
}

fn sender(config: &Config) -> Result<Mailbox> {
    config.mail_from.parse().map_err(|_| failed("mail.from is no address"))
}

fn transport(config: &Config) -> Result<AsyncSmtpTransport<Tokio1Executor>> {
    let tls = match config.mail_security {
        MailSecurity::None => Tls::None,
        MailSecurity::StartTls => Tls::Required(trust(config)?),
        MailSecurity::Tls => Tls::Wrapper(trust(config)?),
    };
    let port = u16::try_from(config.mail_port).map_err(|_| failed("mail.port is no port"))?;
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(config.mail_host.as_str())
        .port(port)
        .tls(tls)
        .timeout(Some(wait(config)));
    if !config.mail_username.is_empty() {
        let password = config.mail_password.clone().unwrap_or_default();
        builder = builder.credentials(Credentials::new(config.mail_username.clone(), password));
    }
    Ok(builder.build())
}

/// The system's authorities, and the one that the settings add: a server at home vouches for itself.
fn trust(config: &Config) -> Result<TlsParameters> {
    let mut builder = TlsParameters::builder(config.mail_host.clone());
    let file = &config.mail_ca_file;
    if !file.as_os_str().is_empty() {
        let shown = file.display();
        let pem = std::fs::read(file).map_err(|e| failed(format!("mail.ca_file: {shown} cannot be read: {e}")))?;
        let certificate = Certificate::from_pem(&pem)
            .map_err(|_| failed(format!("mail.ca_file: {shown} holds no certificate in PEM")))?;
        builder = builder.add_root_certificate(certificate);
    }
    builder.build().map_err(|e| failed(format!("mail: TLS cannot be set up: {e}")))
}

/// What went wrong, without the server's own text: that may repeat an address.
fn explained(e: &lettre::transport::smtp::Error) -> String {
    match e.status() {
        Some(status) => format!("the server answered {status}"),
        None if e.is_timeout() => "the server took too long".into(),
        None if e.is_tls() => format!("TLS failed: {e}"),
        None => "the server cannot be reached, or does not offer what the settings ask for".into(),
    }
}

fn failed(why: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::internal(why)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn configured(from: &str) -> Config {
        Config {
            mail_host: "localhost".into(),
            mail_from: from.into(),
            mail_security: MailSecurity::None,
            ..Config::of(Path::new("data"))
        }
    }

    #[test]
    fn a_time_is_said_in_words() {
        assert_eq!(
            [1, 119, 120, 900, 7_140, 7_200, 86_400].map(in_words),
            ["1 seconds", "119 seconds", "2 minutes", "15 minutes", "119 minutes", "2 hours", "24 hours"]
                .map(str::to_owned)
        );
    }

    #[test]
    fn the_sender_is_an_address_with_or_without_a_name() {
        assert_eq!(faults(&configured("Roster <roster@example.org>")), [""; 0]);
        assert_eq!(faults(&configured("roster@example.org")), [""; 0]);
        assert_eq!(faults(&configured("roster")).len(), 1);
        assert_eq!(faults(&configured("a@example.org\r\nBcc: b@example.org")).len(), 1);
        let strange =
            Config { mail_ca_file: "/nowhere".into(), mail_security: MailSecurity::Tls, ..configured("x@example.org") };
        assert_eq!(faults(&strange), ["mail.ca_file: /nowhere cannot be read: No such file or directory (os error 2)"]);
    }

    #[tokio::test]
    async fn an_address_cannot_add_a_header() {
        for to in ["a@example.org\r\nBcc: b@example.org", "a@example.org, b@example.org", "a", "a@b@c"] {
            let mail = Mail::known_already(MemberId::new(), to.into(), "http://localhost");
            let refused = deliver(&configured("roster@example.org"), mail).await.expect_err(to);
            assert!(refused.source.expect("why").contains("no address"), "{to}");
        }
    }
}
