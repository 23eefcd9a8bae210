//! Mail over SMTP. The only user of lettre.
//!
//! A text holds what its reader needs and nothing that a stranger could have written: no names, only our own sentences
//! (`mail_templates/`, in two languages), the site's address, and a link or a code. Addresses go through the library's parser, so that none can add a header.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::response::{Category, Severity};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use tokio::sync::Semaphore;

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

/// A text for one member.
#[derive(Debug)]
pub struct Mail {
    member: MemberId,
    to: String,
    subject: String,
    text: String,
}

/// What all mail of this site has in common.
#[derive(Debug, Clone, Copy)]
pub struct MailWriter<'a> {
    pub language: Language,
    /// The address of the site.
    pub site: &'a str,
}

/// Renders and sends the mail of this site.
pub fn writer<'a>(config: &'a Config, site: &'a str) -> MailWriter<'a> {
    MailWriter { language: config.mail_language, site }
}

impl MailWriter<'_> {
    /// A link with which the member sets a new password.
    pub fn password_link(self, member: MemberId, to: String, url: &str, ttl_s: u64) -> Mail {
        self.write(MailTemplate::PasswordLink, (member, to), &[("url", url), ("within", &self.in_words(ttl_s))])
    }

    /// The same for who has none yet.
    pub fn welcome(self, member: MemberId, to: String, url: &str, ttl_s: u64) -> Mail {
        self.write(MailTemplate::Welcome, (member, to), &[("url", url), ("within", &self.in_words(ttl_s))])
    }

    /// Tells a member that its storage is nearly full.
    pub fn quota_warning(self, member: MemberId, to: String, percent: u64, used: u64, size: u64) -> Mail {
        let (percent, used, size) = (percent.to_string(), in_units(used), in_units(size));
        self.write(MailTemplate::QuotaWarning, (member, to), &[("percent", &percent), ("used", &used), ("size", &size)])
    }

    /// The code that proves the e-mail of a registration.
    pub fn email_code(self, member: MemberId, to: String, code: &str, ttl_s: u64) -> Mail {
        self.write(MailTemplate::EmailCode, (member, to), &[("code", code), ("within", &self.in_words(ttl_s))])
    }

    /// Tells a member that somebody tried to register with the member's e-mail.
    pub fn known_already(self, member: MemberId, to: String) -> Mail {
        self.write(MailTemplate::KnownAlready, (member, to), &[])
    }

    /// Tells a member that one of the member's API keys ends soon.
    pub fn key_ends(self, member: MemberId, to: String, key: &str, in_s: u64) -> Mail {
        self.write(MailTemplate::KeyEnds, (member, to), &[("key", key), ("within", &self.in_words(in_s))])
    }

    fn write(self, letter: MailTemplate, (member, to): (MemberId, String), values: &[(&str, &str)]) -> Mail {
        let (subject, text) = letter.template(self.language).split_once("\n\n").unwrap_or_default();
        let values: Vec<(&str, &str)> = values.iter().copied().chain([("site", self.site)]).collect();
        Mail { member, to, subject: subject.to_owned(), text: filled(text, &values) }
    }

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

/// The text with its gaps filled, each once: what a value holds is never a gap or a line of its own.
fn filled(text: &str, values: &[(&str, &str)]) -> String {
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

/// Bytes for people.
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

/// Can mail be sent?
pub fn is_configured(config: &Config) -> bool {
    !config.mail_host.is_empty()
}

/// Settings that only this module interprets.
pub fn faults(config: &Config) -> Vec<String> {
    if !is_configured(config) {
        return Vec::new();
    }
    let sender = sender(config).err().map(|_| format!("mail.from: {:?} is no address", config.mail_from));
    let transport = transport(config).err().map(|e| e.source.unwrap_or_default().into_owned());
    sender.into_iter().chain(transport).collect()
}

/// Mails at a time, and mails that wait for their turn.
pub const AT_ONCE_MAX: usize = 4;
const WAITING_MAX: usize = 1_000;
static TURNS: Semaphore = Semaphore::const_new(AT_ONCE_MAX);
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Why a mail did not go out.
#[derive(Debug)]
pub struct Undelivered {
    pub why: String,
    /// A later try would fail alike.
    pub is_final: bool,
}

/// Delivers a mail that somebody waits for, once: a failure is for the log. All others go by the outbox.
pub async fn send(config: &Config, mail: Mail) {
    let member = mail.member;
    if WAITING.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
        WAITING.fetch_sub(1, Ordering::Relaxed);
        tracing::warn!(%member, "a mail was dropped: too many wait already");
        return;
    }
    // What became of it is in the log.
    let _ = deliver(config, mail).await;
    WAITING.fetch_sub(1, Ordering::Relaxed);
}

/// Delivers a mail to the SMTP server.
pub async fn deliver(config: &Config, mail: Mail) -> Result<(), Undelivered> {
    let member = mail.member;
    let turn = TURNS.acquire().await;
    let delivered = hand_over(config, mail).await;
    drop(turn);
    match &delivered {
        Ok(()) => tracing::debug!(%member, "a mail was handed over"),
        Err(e) => tracing::warn!(%member, why = e.why, "a mail was not delivered"),
    }
    delivered
}

async fn hand_over(config: &Config, mail: Mail) -> Result<(), Undelivered> {
    /// Steps of a delivery; each can take up to `neighbours.timeout_ms`.
    const STEPS: u32 = 8;
    let ours = |e: Error| Undelivered { why: e.source.unwrap_or_default().into_owned(), is_final: false };
    let never = |why: String| Undelivered { why, is_final: true };
    let to: Address = mail.to.parse().map_err(|_| never("the member's e-mail is no address for mail".into()))?;
    let message = Message::builder()
        .from(sender(config).map_err(ours)?)
        .to(Mailbox::new(None, to))
        .subject(mail.subject)
        .header(ContentType::TEXT_PLAIN)
        .body(mail.text)
        .map_err(|e| never(format!("it cannot be written: {e}")))?;
    let transport = transport(config).map_err(ours)?;
    match tokio::time::timeout(wait(config) * STEPS, transport.send(message)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) => Err(Undelivered { why: explained(&e), is_final: is_about_the_mailbox(&e) }),
        Err(_) => Err(Undelivered { why: "the server took too long".into(), is_final: false }),
    }
}

/// Was the mailbox refused for good? (A refusal of ours, of a password or of TLS, may be put right.)
fn is_about_the_mailbox(e: &lettre::transport::smtp::Error) -> bool {
    e.status().is_some_and(|status| {
        status.severity == Severity::PermanentNegativeCompletion && status.category == Category::MailSystem
    })
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

    fn writer(language: Language) -> MailWriter<'static> {
        MailWriter { language, site: "https://example.org" }
    }

    #[test]
    fn a_time_is_said_in_words() {
        let said = |language: Language| {
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
        assert_eq!(said(Language::English), english.map(str::to_owned));
        assert_eq!(said(Language::Chinese)[3], " 15 分鐘 ");
    }

    #[test]
    fn bytes_are_said_in_units() {
        let said = [0, 1_023, 1_024, 1_536, 1_048_575, 1_048_576, 10_737_418_240, u64::MAX].map(in_units);
        let expected = ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1023.9 KiB", "1.0 MiB", "10.0 GiB", "16383.9 PiB"];
        assert_eq!(said, expected.map(str::to_owned));
    }

    #[test]
    fn every_letter_has_a_subject_and_the_same_gaps_in_both_languages() {
        let gaps = |text: &str| {
            let mut names: Vec<String> =
                text.split('{').skip(1).filter_map(|piece| Some(piece.split_once('}')?.0.to_owned())).collect();
            names.sort();
            names
        };
        for letter in MailTemplate::ALL {
            let (english, chinese) = (letter.template(Language::English), letter.template(Language::Chinese));
            assert_ne!(english, chinese, "{letter:?}");
            assert_eq!(gaps(english), gaps(chinese), "{letter:?}");
            for template in [english, chinese] {
                let (subject, text) = template.split_once("\n\n").expect("a subject");
                assert!(
                    !subject.contains('{') && subject.lines().count() == 1 && text.contains("{site}"),
                    "{letter:?}"
                );
            }
        }
    }

    #[test]
    fn no_gap_of_a_letter_stays_open() {
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
    fn what_fills_a_gap_is_neither_a_gap_nor_a_line() {
        let values = [("a", "1{b}\r\nBcc: x"), ("b", "2")];
        assert_eq!(filled("{a} {b} {c}{a", &values), "1{b}  Bcc: x 2 1{b}  Bcc: x");
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
            let refused = deliver(&configured("roster@example.org"), mail).await.expect_err(to);
            assert!(refused.is_final && refused.why.contains("no address"), "{to}");
        }
    }
}
