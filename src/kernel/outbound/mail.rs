//! Mail over SMTP. The only user of lettre.
//!
//! A text contains nothing that a third party could have written: no names, only the sentences of `mail_templates/` (in
//! two languages), the site's address, and a link or a code. Addresses go through lettre's parser, so that none can add
//! a header.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::response::{Category, Severity};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use tokio::sync::Semaphore;

use super::Outbound;
use super::connection::{ConnectionFailure, FailureCause, cause_of};
use crate::kernel::config::{Config, Language, MailSecurity};
use crate::kernel::error::{Error, Result};
use crate::kernel::ids::MemberId;

macro_rules! mail_templates {
    ($($name:ident $file:literal;)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        enum MailTemplate { $($name,)* }

        impl MailTemplate {
            #[cfg(test)]
            const ALL: &'static [MailTemplate] = &[$(MailTemplate::$name,)*];

            /// The subject, an empty line, and the text.
            fn template(self, language: Language) -> &'static str {
                match (self, language) {
                    $((MailTemplate::$name, Language::English) => include_str!(concat!("mail_templates/en/", $file)),
                      (MailTemplate::$name, Language::Chinese) => include_str!(concat!("mail_templates/zh-TW/", $file)),)*
                }
            }
        }
    };
}

mail_templates! {
    PasswordLink "password_link.txt";
    Welcome "welcome.txt";
    QuotaWarning "quota_warning.txt";
    EmailCode "email_code.txt";
    KnownAlready "known_already.txt";
    KeyEnds "key_ends.txt";
}

/// A mail to one member.
#[derive(Debug)]
pub struct Mail {
    member: MemberId,
    to: String,
    subject: String,
    text: String,
}

/// Renders mail in the language of the site.
#[derive(Debug, Clone, Copy)]
pub struct MailWriter<'a> {
    pub language: Language,
    /// The public URL of the site.
    pub site: &'a str,
}

/// Returns the renderer of mail for this site.
pub fn writer<'a>(config: &'a Config, site: &'a str) -> MailWriter<'a> {
    MailWriter { language: config.mail_language, site }
}

impl MailWriter<'_> {
    /// A link to set a new password.
    pub fn password_link(self, member: MemberId, to: String, url: &str, ttl_s: u64) -> Mail {
        self.write(MailTemplate::PasswordLink, (member, to), &[("url", url), ("within", &self.in_words(ttl_s))])
    }

    /// A link to set the first password.
    pub fn welcome(self, member: MemberId, to: String, url: &str, ttl_s: u64) -> Mail {
        self.write(MailTemplate::Welcome, (member, to), &[("url", url), ("within", &self.in_words(ttl_s))])
    }

    /// A warning that the member's storage is nearly full.
    pub fn quota_warning(self, member: MemberId, to: String, percent: u64, used: u64, size: u64) -> Mail {
        let (percent, used, size) = (percent.to_string(), in_units(used), in_units(size));
        self.write(MailTemplate::QuotaWarning, (member, to), &[("percent", &percent), ("used", &used), ("size", &size)])
    }

    /// The code that verifies the e-mail address of a registration.
    pub fn email_code(self, member: MemberId, to: String, code: &str, ttl_s: u64) -> Mail {
        self.write(MailTemplate::EmailCode, (member, to), &[("code", code), ("within", &self.in_words(ttl_s))])
    }

    /// A notice that somebody tried to register with the member's e-mail address.
    pub fn known_already(self, member: MemberId, to: String) -> Mail {
        self.write(MailTemplate::KnownAlready, (member, to), &[])
    }

    /// A notice that one of the member's API keys expires soon.
    pub fn key_ends(self, member: MemberId, to: String, key: &str, in_s: u64) -> Mail {
        self.write(MailTemplate::KeyEnds, (member, to), &[("key", key), ("within", &self.in_words(in_s))])
    }

    fn write(self, template: MailTemplate, (member, to): (MemberId, String), values: &[(&str, &str)]) -> Mail {
        let (subject, text) = template.template(self.language).split_once("\n\n").unwrap_or_default();
        let values: Vec<(&str, &str)> = values.iter().copied().chain([("site", self.site)]).collect();
        Mail { member, to, subject: subject.to_owned(), text: fill(text, &values) }
    }

    /// A duration as text, such as `15 minutes`.
    fn in_words(self, seconds: u64) -> String {
        let (count, unit) = match (seconds, seconds.div_ceil(60), seconds.div_ceil(3_600)) {
            (..120, ..) => (seconds, [" seconds", " 秒"]),
            (_, minutes @ ..120, _) => (minutes, [" minutes", " 分鐘"]),
            (.., hours @ ..48) => (hours, [" hours", " 小時"]),
            (.., hours) => (hours.div_ceil(24), [" days", " 天"]),
        };
        match self.language {
            Language::English => format!("{count}{}", unit[0]),
            Language::Chinese => format!(" {count}{} ", unit[1]),
        }
    }
}

/// Replaces each placeholder once: a placeholder or a line break inside of a value has no effect.
fn fill(text: &str, values: &[(&str, &str)]) -> String {
    let mut pieces = text.split('{');
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (name, rest) = piece.split_once('}').unwrap_or((piece, ""));
        let value = values.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value);
        out.extend(value.chars().map(|c| if c.is_control() { ' ' } else { c }));
        out.push_str(rest);
    }
    out
}

/// Bytes as text, such as `1.5 GiB`.
fn in_units(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let step = (bytes.ilog2() / 10).clamp(1, 5);
    let tenths = u128::from(bytes) * 10 / (1 << (10 * step));
    let unit = UNITS.get(step as usize - 1).copied().unwrap_or_default();
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// Whether the settings allow to send mail.
pub fn is_configured(config: &Config) -> bool {
    !config.mail_host.is_empty()
}

/// Returns the faults of the settings that only this module can check.
pub fn faults(config: &Config) -> Vec<String> {
    if !is_configured(config) {
        return Vec::new();
    }
    let sender = sender(config).err().map(|_| format!("mail.from: {:?} is not an e-mail address", config.mail_from));
    let transport = transport(config).err().map(|e| e.source.unwrap_or_default().into_owned());
    sender.into_iter().chain(transport).collect()
}

/// The most concurrent deliveries.
pub const CONCURRENT_MAX: usize = 4;
/// The most mails that wait for delivery outside of the outbox.
const WAITING_MAX: usize = 1_000;
static PERMITS: Semaphore = Semaphore::const_new(CONCURRENT_MAX);
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// A failed delivery.
#[derive(Debug)]
pub struct DeliveryError {
    pub why: String,
    /// Whether a retry would fail too.
    pub is_final: bool,
}

/// Tries once to deliver a mail that its reader waits for; a failure is only logged. All other mail goes through the
/// outbox.
pub async fn send(outbound: &Outbound, config: &Config, mail: Mail) {
    let member = mail.member;
    if WAITING.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
        WAITING.fetch_sub(1, Ordering::Relaxed);
        tracing::warn!(%member, "a mail was dropped: too many are waiting");
        return;
    }
    // `deliver` logs the outcome.
    let _ = deliver(outbound, config, mail).await;
    WAITING.fetch_sub(1, Ordering::Relaxed);
}

/// The name of the connection.
pub const NAME: &str = "mail";

/// Delivers a mail to the SMTP server.
pub async fn deliver(outbound: &Outbound, config: &Config, mail: Mail) -> Result<(), DeliveryError> {
    let member = mail.member;
    let permit = PERMITS.acquire().await;
    let delivered = submit(outbound, config, mail).await;
    drop(permit);
    match &delivered {
        Ok(()) => tracing::debug!(%member, "a mail was delivered to the SMTP server"),
        Err(e) => tracing::warn!(%member, why = e.why, "a mail was not delivered"),
    }
    delivered
}

async fn submit(outbound: &Outbound, config: &Config, mail: Mail) -> Result<(), DeliveryError> {
    /// SMTP steps of a delivery; each can take up to `neighbours.timeout_ms`.
    const STEPS: u32 = 8;
    let in_settings = |e: Error| DeliveryError { why: e.source.unwrap_or_default().into_owned(), is_final: false };
    let permanent = |why: String| DeliveryError { why, is_final: true };
    let to: Address =
        mail.to.parse().map_err(|_| permanent("the member's e-mail is not a valid mail address".into()))?;
    let message = Message::builder()
        .from(sender(config).map_err(in_settings)?)
        .to(Mailbox::new(None, to))
        .subject(mail.subject)
        .header(ContentType::TEXT_PLAIN)
        .body(mail.text)
        .map_err(|e| permanent(format!("the message cannot be built: {e}")))?;
    let transport = transport(config).map_err(in_settings)?;
    let sent = tokio::time::timeout(wait(config) * STEPS, transport.send(message)).await;
    // A server that does not know the mailbox works.
    let outcome = match &sent {
        Ok(Err(e)) if !is_about_the_mailbox(e) => Err(ConnectionFailure { message: explained(e), ..failure_of(e) }),
        Err(_) => Err(ConnectionFailure::new(FailureCause::Timeout, TOO_LONG)),
        Ok(_) => Ok(()),
    };
    outbound.records.record(NAME, &outcome);
    match sent {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) => Err(DeliveryError { why: explained(&e), is_final: is_about_the_mailbox(&e) }),
        Err(_) => Err(DeliveryError { why: TOO_LONG.into(), is_final: false }),
    }
}

const TOO_LONG: &str = "the server took too long";

/// Tests the connection without sending a mail: connects, greets, signs in, and says `NOOP`.
pub async fn probe(config: &Config) -> Result<(), ConnectionFailure> {
    let in_settings =
        |e: Error| ConnectionFailure::new(FailureCause::Certificate, e.source.as_deref().unwrap_or_default());
    match transport(config).map_err(in_settings)?.test_connection().await {
        Ok(true) => Ok(()),
        Ok(false) => Err(ConnectionFailure::new(FailureCause::UnexpectedAnswer, "the server closed the connection")),
        Err(e) => Err(failure_of(&e)),
    }
}

/// The failure with the server's own text.
fn failure_of(e: &lettre::transport::smtp::Error) -> ConnectionFailure {
    let text = std::error::Error::source(e).map_or_else(|| e.to_string(), ToString::to_string);
    let Some(status) = e.status() else {
        let other = match e {
            _ if e.is_timeout() => FailureCause::Timeout,
            _ if e.is_tls() => FailureCause::Certificate,
            // Among others: STARTTLS or a way to sign in is not offered.
            _ if e.is_client() || e.is_response() => FailureCause::UnexpectedAnswer,
            _ => FailureCause::Unreachable,
        };
        return ConnectionFailure::new(cause_of(e).unwrap_or(other), text);
    };
    let number = u16::from(status);
    let cause = match number {
        530 | 534 | 535 | 538 => FailureCause::Unauthorized,
        400..=499 => FailureCause::ServerError,
        _ => FailureCause::UnexpectedAnswer,
    };
    ConnectionFailure::new(cause, format!("{number} {text}"))
}

/// Whether the server refused the mailbox permanently. (If it refuses the sender, the password or TLS, a retry can
/// succeed after the settings are corrected.)
fn is_about_the_mailbox(e: &lettre::transport::smtp::Error) -> bool {
    e.status().is_some_and(|status| {
        status.severity == Severity::PermanentNegativeCompletion && status.category == Category::MailSystem
    })
}

fn wait(config: &Config) -> Duration {
    Duration::from_millis(config.neighbour_timeout_ms)
}

fn sender(config: &Config) -> Result<Mailbox> {
    config.mail_from.parse().map_err(|_| failed("mail.from is not an e-mail address"))
}

fn transport(config: &Config) -> Result<AsyncSmtpTransport<Tokio1Executor>> {
    let tls = match config.mail_security {
        MailSecurity::None => Tls::None,
        MailSecurity::StartTls => Tls::Required(trust(config)?),
        MailSecurity::Tls => Tls::Wrapper(trust(config)?),
    };
    let port = u16::try_from(config.mail_port).map_err(|_| failed("mail.port is not a port number"))?;
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

/// The system's certificate authorities, and the one of `mail.ca_file`, for a mail server with its own certificate.
fn trust(config: &Config) -> Result<TlsParameters> {
    let mut builder = TlsParameters::builder(config.mail_host.clone());
    let file = &config.mail_ca_file;
    if !file.as_os_str().is_empty() {
        let shown = file.display();
        let pem = std::fs::read(file).map_err(|e| failed(format!("mail.ca_file: {shown} cannot be read: {e}")))?;
        let certificate = Certificate::from_pem(&pem)
            .map_err(|_| failed(format!("mail.ca_file: {shown} contains no PEM certificate")))?;
        builder = builder.add_root_certificate(certificate);
    }
    builder.build().map_err(|e| failed(format!("mail: TLS cannot be set up: {e}")))
}

/// The error without the server's own text, which may contain an address.
fn explained(e: &lettre::transport::smtp::Error) -> String {
    match e.status() {
        Some(status) => format!("the server answered {status}"),
        None if e.is_timeout() => TOO_LONG.into(),
        None if e.is_tls() => format!("TLS failed: {e}"),
        None => "the server cannot be reached, or does not support what the settings require".into(),
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

    fn writer(language: Language) -> MailWriter<'static> {
        MailWriter { language, site: "https://example.org" }
    }

    #[test]
    fn a_duration_is_rendered_in_both_languages() {
        let rendered = |language: Language| {
            [1, 119, 120, 900, 7_140, 7_200, 169_200, 172_800, 604_800].map(|s| writer(language).in_words(s))
        };
        let english = [
            "1 seconds",
            "119 seconds",
            "2 minutes",
            "15 minutes",
            "119 minutes",
            "2 hours",
            "47 hours",
            "2 days",
            "7 days",
        ];
        assert_eq!(rendered(Language::English), english.map(str::to_owned));
        assert_eq!(rendered(Language::Chinese)[3], " 15 分鐘 ");
    }

    #[test]
    fn bytes_are_rendered_with_units() {
        let rendered = [0, 1_023, 1_024, 1_536, 1_048_575, 1_048_576, 10_737_418_240, u64::MAX].map(in_units);
        let expected = ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1023.9 KiB", "1.0 MiB", "10.0 GiB", "16383.9 PiB"];
        assert_eq!(rendered, expected.map(str::to_owned));
    }

    #[test]
    fn every_template_has_a_subject_and_the_same_placeholders_in_both_languages() {
        let placeholders = |text: &str| {
            let mut names: Vec<String> =
                text.split('{').skip(1).filter_map(|piece| Some(piece.split_once('}')?.0.to_owned())).collect();
            names.sort();
            names
        };
        for mail in MailTemplate::ALL {
            let (english, chinese) = (mail.template(Language::English), mail.template(Language::Chinese));
            assert_ne!(english, chinese, "{mail:?}");
            assert_eq!(placeholders(english), placeholders(chinese), "{mail:?}");
            for template in [english, chinese] {
                let (subject, text) = template.split_once("\n\n").expect("a subject");
                assert!(!subject.contains('{') && subject.lines().count() == 1 && text.contains("{site}"), "{mail:?}");
            }
        }
    }

    #[test]
    fn every_placeholder_of_a_mail_is_filled() {
        for language in [Language::English, Language::Chinese] {
            let (id, to) = (MemberId::new(), || "kim@example.org".to_owned());
            let writer = writer(language);
            for mail in [
                writer.password_link(id, to(), "URL", 3_600),
                writer.welcome(id, to(), "URL", 604_800),
                writer.quota_warning(id, to(), 95, 10, 20),
                writer.email_code(id, to(), "CODE", 900),
                writer.known_already(id, to()),
                writer.key_ends(id, to(), "KEY", 86_400),
            ] {
                let values = ["URL", "CODE", "KEY", "20 B"].iter().filter(|value| mail.text.contains(**value)).count();
                assert_eq!(values, usize::from(mail.subject != writer.known_already(id, to()).subject), "{mail:?}");
                assert!(!mail.text.contains(['{', '}']) && mail.text.contains("https://example.org"), "{mail:?}");
            }
        }
    }

    #[test]
    fn a_value_adds_neither_a_placeholder_nor_a_line() {
        let values = [("a", "1{b}\r\nBcc: x"), ("b", "2")];
        assert_eq!(fill("{a} {b} {c}{a", &values), "1{b}  Bcc: x 2 1{b}  Bcc: x");
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
            let mail = writer(Language::English).known_already(MemberId::new(), to.into());
            let config = configured("roster@example.org");
            let refused = deliver(&Outbound::new(&config, |_| false), &config, mail).await.expect_err(to);
            assert!(refused.is_final && refused.why.contains("not a valid mail address"), "{to}");
        }
    }
}
