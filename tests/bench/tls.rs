//! Checks over TLS, compared with the same checks without it, on two servers with equal data.
//!
//! The client encrypts too, on its one thread, so the ratio is lower than the server's part alone.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::driver::{self, Target};
use crate::metrics::{Figures, progress};
use crate::site::{self, Site};
use crate::{IN_FLIGHT, ROUNDS};

/// Returns whether all requests were answered.
pub fn run(site: &Site, directory: &Path, figures: &mut Figures) -> bool {
    let copy = directory.join("site-with-tls");
    site.copy_to(&copy);
    let made = Command::new(site::binary())
        .args(["tls", "local", "--host", "localhost", "--json", "--data"])
        .arg(&copy)
        .stdout(Stdio::null())
        .status();
    assert!(made.expect("roster tls local").success());
    let mut command = Command::new(site::binary());
    command.env("ROSTER_TLS_MODE", "local");
    let secured = site::served(command, &copy);
    let plain = site.launch_settled();
    let targets = [
        Target::from(plain.address),
        Target { address: secured.address, tls: Some(connector(&copy.join("tls/authority.crt"))) },
    ];
    let check = |n: u64, _: &[u8], request: &mut Vec<u8>| site::check_request(site, n, request);
    let (mut best, mut is_answered) = ([0.0_f64; 2], true);
    for round in 0..ROUNDS {
        progress(&format!("checks without and with TLS, round {} of {ROUNDS}", round + 1));
        for (best, target) in best.iter_mut().zip(&targets) {
            let measured = driver::measure(target.clone(), IN_FLIGHT, &[], &check);
            if let Some(complaint) = &measured.complaint {
                eprintln!("{} requests failed, the first one: {complaint}", measured.failed);
                is_answered = false;
            }
            *best = best.max(measured.per_s);
        }
    }
    plain.stop();
    secured.stop();
    figures.add("tls_check_vs_plain", best[1] / best[0]);
    figures.add("tls_check_per_s", best[1]);
    is_answered
}

fn connector(authority: &Path) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).expect("an authority")).expect("a root");
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    TlsConnector::from(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}
