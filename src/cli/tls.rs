//! Commands for TLS without a proxy.

use std::path::Path;

use clap::Subcommand;
use serde_json::json;

use super::{Common, Failed, data_dir, output};
use crate::kernel::config::TlsMode;
use crate::kernel::ids::Timestamp;
use crate::kernel::units::shown_moment;
use crate::server::listener::authority::{self, Issued};

#[derive(Subcommand)]
pub(super) enum TlsCommand {
    /// Make a certificate for names and addresses in a local network, and the authority that devices trust once
    Local {
        /// Name or address at which devices reach this server, without a port; may be repeated
        #[arg(long = "host", required = true, value_name = "NAME")]
        hosts: Vec<String>,
    },
}

pub(super) fn run(common: &Common, command: TlsCommand) -> Result<(), Failed> {
    let TlsCommand::Local { hosts } = command;
    data_dir::create(&common.data)?;
    let issued = authority::issue(&common.data, &hosts, Timestamp::now()).map_err(Failed)?;
    if common.json {
        output::print_object(
            true,
            &json!({
                "authority_file": issued.authority_file.display().to_string(),
                "sha256": issued.fingerprint,
                "is_new_authority": issued.is_new_authority,
                "authority_ends_at": issued.authority_ends_at,
                "certificate_ends_at": issued.certificate_ends_at,
                "hosts": issued.hosts,
            }),
        );
        return Ok(());
    }
    // The other settings do not matter here, so they may be wrong.
    let is_set = common.load(None).is_ok_and(|config| config.tls_mode == TlsMode::Local);
    print(&issued, is_set);
    Ok(())
}

/// How each system is told to trust an authority.
const TRUST: [(&str, &str); 5] = [
    ("macOS", "sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain FILE"),
    (
        "iOS, iPadOS",
        "open FILE, install it under Settings > General > VPN & Device Management, then turn it on under Settings > \
         General > About > Certificate Trust Settings",
    ),
    ("Windows", "certutil -addstore -f Root FILE   (in a terminal that runs as administrator)"),
    (
        "Linux",
        "sudo cp FILE /usr/local/share/ca-certificates/roster.crt && sudo update-ca-certificates   (Debian, Ubuntu), or \
         sudo trust anchor FILE   (Fedora, Arch)",
    ),
    (
        "Android",
        "copy FILE to the device, then Settings > Security > More security settings > Encryption & credentials > \
         Install a certificate > CA certificate",
    ),
];

fn print(issued: &Issued, is_set: bool) {
    let Issued { authority_file, fingerprint, hosts, .. } = issued;
    let until = |ms: i64| shown_moment(ms).chars().take("2026-12-31".len()).collect::<String>();
    say!(
        "The certificate holds for {} until {}. Roster renews it.",
        hosts.join(", "),
        until(issued.certificate_ends_at)
    );
    say!("");
    say!("Authority, until {}:", until(issued.authority_ends_at));
    say!("  {}", authority_file.display());
    say!("  SHA-256 {fingerprint}");
    say!("");
    if issued.is_new_authority {
        say!("Each device must trust it once. Copy this file to the device, compare the SHA-256 that it shows, and:");
    } else {
        say!("Devices that trust it already need nothing. On others, compare the SHA-256 that they show, and:");
    }
    let file = authority_file.file_name().map_or(authority_file.as_path(), Path::new).display().to_string();
    for (system, step) in TRUST {
        say!("  {system:<13}{}", step.replace("FILE", &file));
    }
    say!("Firefox has a list of its own: Settings > Privacy & Security > Certificates > View Certificates > Import.");
    say!("");
    if is_set {
        say!("A running server uses the certificate within a minute, or at once after SIGHUP.");
    } else {
        say!("Set tls.mode = \"local\" in roster.toml, listen on an address that devices reach, and restart Roster.");
    }
    say!("Keep authority.key secret: with it, anybody can imitate every site to these devices.");
}
