//! The certificate authority of `roster tls local`, and the certificate that it issues to this server.
//!
//! The only user of rcgen. No certificate is parsed: `local.json` holds what must be known about them later. The key of
//! the authority is readable for its owner only, because with it anybody can imitate every site to devices that trust
//! the authority.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::kernel::ids::Timestamp;
use crate::kernel::secret;

const DAY_MS: i64 = 86_400_000;
/// Ten years.
const AUTHORITY_MS: i64 = 3_652 * DAY_MS;
/// Apple's systems refuse server certificates of more than 398 days.
const CERTIFICATE_MS: i64 = 397 * DAY_MS;
/// How long before its end a certificate is replaced.
const RENEWAL_MS: i64 = 30 * DAY_MS;
/// Certificates begin a day early, for devices whose clock is slow.
const EARLY_MS: i64 = DAY_MS;
/// Most hosts of one certificate.
pub const HOSTS_MAX: usize = 100;

const AUTHORITY: &str = "authority.crt";
const AUTHORITY_KEY: &str = "authority.key";
/// The certificate of the server and its key in one file, so that they are replaced together.
const CERTIFICATE: &str = "server.pem";
const RECORD: &str = "local.json";

/// What is known about the authority and the certificate that it issued last.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    /// The name of the authority in its certificates.
    authority: String,
    authority_ends_at: i64,
    hosts: Vec<String>,
    certificate_ends_at: i64,
}

/// An issued certificate, and the authority that devices must trust.
#[derive(Debug)]
pub struct Issued {
    pub authority_file: PathBuf,
    /// SHA-256 of the authority's certificate, as devices show it.
    pub fingerprint: String,
    pub is_new_authority: bool,
    pub authority_ends_at: i64,
    pub certificate_ends_at: i64,
    pub hosts: Vec<String>,
}

fn folder(data: &Path) -> PathBuf {
    data.join("tls")
}

/// The file of the server's certificate and key.
pub fn certificate_file(data: &Path) -> PathBuf {
    folder(data).join(CERTIFICATE)
}

/// The hosts of the certificate that was issued last; empty if there is none.
pub fn hosts(data: &Path) -> Vec<String> {
    find_record(&folder(data)).ok().flatten().map(|record| record.hosts).unwrap_or_default()
}

/// Issues a certificate for these hosts. Creates the authority if there is none, or if it ends before the certificate
/// would.
pub fn issue(data: &Path, hosts: &[String], now: Timestamp) -> Result<Issued, String> {
    let hosts = checked(hosts)?;
    let folder = folder(data);
    let created = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    created.map_err(|e| format!("{} cannot be created: {e}", folder.display()))?;
    let known = find_record(&folder)?.filter(|record| record.authority_ends_at > now.0 + CERTIFICATE_MS);
    let is_new_authority = known.is_none();
    let mut record = match known {
        Some(record) => record,
        None => create_authority(&folder, &hosts[0], now)?,
    };
    record.hosts = hosts;
    let record = issue_certificate(&folder, record, now)?;
    Ok(Issued {
        fingerprint: fingerprint(&folder.join(AUTHORITY))?,
        authority_file: folder.join(AUTHORITY),
        is_new_authority,
        authority_ends_at: record.authority_ends_at,
        certificate_ends_at: record.certificate_ends_at,
        hosts: record.hosts,
    })
}

/// Replaces the certificate if it ends within 30 days. Returns whether it was replaced.
pub fn renew_if_due(data: &Path, now: Timestamp) -> Result<bool, String> {
    let folder = folder(data);
    let Some(record) = find_record(&folder)? else { return Ok(false) };
    if record.certificate_ends_at - now.0 > RENEWAL_MS {
        return Ok(false);
    }
    if record.authority_ends_at - now.0 <= RENEWAL_MS {
        return Err("the authority of tls.mode local ends soon: make another one with `roster tls local`, and trust it on every device".into());
    }
    issue_certificate(&folder, record, now).map(|_| true)
}

/// The hosts in lower case and without duplicates, or why one of them is refused.
fn checked(hosts: &[String]) -> Result<Vec<String>, String> {
    let mut checked: Vec<String> = Vec::new();
    for host in hosts {
        let host = host.to_ascii_lowercase();
        if ServerName::try_from(host.as_str()).is_err() {
            return Err(format!(
                "{host:?} is not a host: name it without https:// and without a port, as in nas.local"
            ));
        }
        if !checked.contains(&host) {
            checked.push(host);
        }
    }
    match checked.len() {
        0 => Err("at least one host is needed".into()),
        1..=HOSTS_MAX => Ok(checked),
        _ => Err(format!("at most {HOSTS_MAX} hosts are possible")),
    }
}

/// The record; `None` if no certificate was issued yet.
fn find_record(folder: &Path) -> Result<Option<Record>, String> {
    let path = folder.join(RECORD);
    let unreadable = |e: &dyn std::fmt::Display| format!("{} cannot be read: {e}", path.display());
    match std::fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).map(Some).map_err(|e| unreadable(&e)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(unreadable(&e)),
    }
}

/// Creates the key and the certificate of an authority. Its record has no certificate yet.
fn create_authority(folder: &Path, host: &str, now: Timestamp) -> Result<Record, String> {
    let random = secret::random().map_err(|e| e.to_string())?;
    let record = Record {
        // Systems list authorities by name, so two sites must not have the same one.
        authority: format!("Roster {host} {}", hex::encode(&random[..4])),
        authority_ends_at: begin(now) + AUTHORITY_MS,
        hosts: Vec::new(),
        certificate_ends_at: 0,
    };
    let key = KeyPair::generate().map_err(not_made)?;
    let certificate = authority_params(&record, now).self_signed(&key).map_err(not_made)?;
    write(&folder.join(AUTHORITY_KEY), 0o600, key.serialize_pem().as_bytes())?;
    write(&folder.join(AUTHORITY), 0o644, certificate.pem().as_bytes())?;
    Ok(record)
}

/// The parameters of the authority. To issue a certificate, only its name and its key matter.
fn authority_params(record: &Record, now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(&record.authority);
    set_validity(&mut params, begin(now), record.authority_ends_at);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Issues a certificate for the hosts of the record, and writes both.
fn issue_certificate(folder: &Path, mut record: Record, now: Timestamp) -> Result<Record, String> {
    let path = folder.join(AUTHORITY_KEY);
    let key = std::fs::read_to_string(&path).map_err(|e| e.to_string());
    let authority_key = key.and_then(|pem| KeyPair::from_pem(&pem).map_err(|e| e.to_string())).map_err(|e| {
        format!(
            "{} cannot be read: {e}. Restore it, or remove {} and make another authority with `roster tls local`",
            path.display(),
            folder.display()
        )
    })?;
    let authority = authority_params(&record, now);
    let issuer = Issuer::from_params(&authority, &authority_key);
    record.certificate_ends_at = (begin(now) + CERTIFICATE_MS).min(record.authority_ends_at);
    let mut params = CertificateParams::new(record.hosts.clone()).map_err(not_made)?;
    params.distinguished_name = common_name(record.hosts.first().map_or("roster", String::as_str));
    set_validity(&mut params, begin(now), record.certificate_ends_at);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().map_err(not_made)?;
    let certificate = params.signed_by(&key, &issuer).map_err(not_made)?;
    let both = format!("{}{}", certificate.pem(), key.serialize_pem());
    write(&folder.join(CERTIFICATE), 0o600, both.as_bytes())?;
    let text = serde_json::to_string_pretty(&record).map_err(|e| e.to_string())?;
    write(&folder.join(RECORD), 0o600, text.as_bytes())?;
    Ok(record)
}

fn not_made(error: rcgen::Error) -> String {
    format!("the certificate cannot be made: {error}")
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// When a certificate that is made now begins. Certificates have whole seconds.
fn begin(now: Timestamp) -> i64 {
    (now.0 - EARLY_MS).max(0) / 1_000 * 1_000
}

fn set_validity(params: &mut CertificateParams, from: i64, until: i64) {
    let moment = |ms| date_time_ymd(1970, 1, 1) + Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    (params.not_before, params.not_after) = (moment(from), moment(until));
}

/// SHA-256 of the certificate in a file, as systems show it: `AB:CD:…`.
fn fingerprint(path: &Path) -> Result<String, String> {
    let certificate = CertificateDer::from_pem_file(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let bytes: Vec<String> = Sha256::digest(&certificate).iter().map(|byte| format!("{byte:02X}")).collect();
    Ok(bytes.join(":"))
}

/// Replaces a file in one step.
fn write(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), String> {
    let temporary = path.with_extension("new");
    let _ = std::fs::remove_file(&temporary);
    let written = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    });
    written.map_err(|e| format!("{} cannot be written: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::UnixTime;

    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn issued(data: &Path, hosts: &[&str], now: Timestamp) -> Result<Issued, String> {
        issue(data, &hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>(), now)
    }

    /// Whether a device that trusts the authority accepts the certificate for a host at a time.
    fn is_accepted(data: &Path, host: &str, at_ms: i64) -> bool {
        let read = |file: PathBuf| CertificateDer::from_pem_file(file).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(read(folder(data).join(AUTHORITY))).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().expect("a verifier");
        let at = UnixTime::since_unix_epoch(Duration::from_millis(at_ms.try_into().expect("a time")));
        let name = ServerName::try_from(host).expect("a host");
        verifier.verify_server_cert(&read(certificate_file(data)), &[], &name, &[], at).is_ok()
    }

    #[test]
    fn the_certificate_holds_for_its_hosts_from_the_day_before_until_its_end() {
        let data = tempfile::tempdir().expect("a directory");
        let made =
            issued(data.path(), &["NAS.local", "192.168.1.5", "fd00::5", "nas.local"], NOW).expect("a certificate");
        assert_eq!(made.hosts, ["nas.local", "192.168.1.5", "fd00::5"]);
        assert_eq!(hosts(data.path()), made.hosts);
        assert_eq!(made.certificate_ends_at, NOW.0 - EARLY_MS + 397 * DAY_MS);
        assert_eq!(made.authority_ends_at, NOW.0 - EARLY_MS + 3_652 * DAY_MS);
        for host in &made.hosts {
            for (at, wanted) in [
                (NOW.0 - EARLY_MS - 1_000, false),
                (NOW.0 - EARLY_MS, true),
                (made.certificate_ends_at, true),
                (made.certificate_ends_at + 1_000, false),
            ] {
                assert_eq!(is_accepted(data.path(), host, at), wanted, "{host} {at}");
            }
        }
        assert!(!is_accepted(data.path(), "other.local", NOW.0));
        for (file, mode) in
            [("", 0o700), (AUTHORITY, 0o644), (AUTHORITY_KEY, 0o600), (CERTIFICATE, 0o600), (RECORD, 0o600)]
        {
            let found = std::fs::metadata(folder(data.path()).join(file)).expect("a file").permissions().mode();
            assert_eq!(found & 0o777, mode, "{file}");
        }
    }

    #[test]
    fn a_certificate_is_renewed_thirty_days_before_its_end_and_not_earlier() {
        let data = tempfile::tempdir().expect("a directory");
        assert_eq!(renew_if_due(data.path(), NOW), Ok(false), "there is none");
        let made = issued(data.path(), &["nas.local"], NOW).expect("a certificate");
        let due = Timestamp(made.certificate_ends_at - 30 * DAY_MS);
        assert_eq!(renew_if_due(data.path(), due.plus_ms(-1)), Ok(false));
        assert!(!is_accepted(data.path(), "nas.local", made.certificate_ends_at + DAY_MS));
        assert_eq!(renew_if_due(data.path(), due), Ok(true));
        assert!(is_accepted(data.path(), "nas.local", made.certificate_ends_at + DAY_MS));
        assert_eq!(fingerprint(&made.authority_file), Ok(made.fingerprint));
    }

    #[test]
    fn other_hosts_keep_the_authority_until_it_would_end_before_the_certificate() {
        let data = tempfile::tempdir().expect("a directory");
        let first = issued(data.path(), &["nas.local"], NOW).expect("a certificate");
        assert!(first.is_new_authority);
        let last = Timestamp(first.authority_ends_at - CERTIFICATE_MS - 1);
        let second = issued(data.path(), &["roster.local"], last).expect("a certificate");
        assert_eq!((second.is_new_authority, &second.fingerprint), (false, &first.fingerprint));
        assert!(is_accepted(data.path(), "roster.local", last.0) && !is_accepted(data.path(), "nas.local", last.0));
        let third = issued(data.path(), &["roster.local"], last.plus_ms(1)).expect("a certificate");
        assert!(third.is_new_authority && third.fingerprint != first.fingerprint);
        assert!(is_accepted(data.path(), "roster.local", last.0));
    }

    #[test]
    fn a_lost_key_is_reported_and_keeps_the_certificate() {
        let data = tempfile::tempdir().expect("a directory");
        let made = issued(data.path(), &["nas.local"], NOW).expect("a certificate");
        std::fs::remove_file(folder(data.path()).join(AUTHORITY_KEY)).expect("removed");
        let why = renew_if_due(data.path(), Timestamp(made.certificate_ends_at)).expect_err("no key");
        assert!(why.contains("authority.key cannot be read"), "{why}");
        assert!(is_accepted(data.path(), "nas.local", NOW.0));
    }

    #[test]
    fn hosts_are_names_and_addresses_at_their_limit_and_not_one_past_it() {
        let data = tempfile::tempdir().expect("a directory");
        for wrong in ["", "https://nas.local", "nas.local:8480", "nas local", "192.168.1.0/24", "-"] {
            let why = issued(data.path(), &[wrong], NOW).expect_err(wrong);
            assert!(why.contains("is not a host"), "{wrong}: {why}");
        }
        assert!(issued(data.path(), &[], NOW).is_err());
        let names: Vec<String> = (0..=HOSTS_MAX).map(|n| format!("nas{n}.local")).collect();
        assert_eq!(issue(data.path(), &names[..HOSTS_MAX], NOW).expect("a certificate").hosts.len(), HOSTS_MAX);
        assert_eq!(issue(data.path(), &names, NOW).expect_err("too many"), "at most 100 hosts are possible");
    }
}
