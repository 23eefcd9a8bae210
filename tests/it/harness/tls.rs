//! Certificates and a client for TLS, without the HTTP client of the other tests: it shows what the server presents.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

/// Longest wait for something that happens at once or never.
const PATIENCE: Duration = Duration::from_secs(30);

/// A certificate for `localhost` and `127.0.0.1`, and its key.
pub struct Pair {
    pub certificate: CertificateDer<'static>,
    pem: String,
    key_pem: String,
}

impl Pair {
    pub fn new() -> Self {
        let hosts = ["localhost", "127.0.0.1"].map(str::to_owned);
        let key = KeyPair::generate().expect("a key");
        let made = CertificateParams::new(hosts).expect("hosts").self_signed(&key).expect("a certificate");
        Self { certificate: made.der().clone(), pem: made.pem(), key_pem: key.serialize_pem() }
    }

    /// Replaces the files of the folder with this pair.
    pub fn put(&self, folder: &Path) {
        self.put_certificate(folder);
        replace(&key_file(folder), &self.key_pem);
    }

    /// Replaces the certificate, and leaves the key as it is.
    pub fn put_certificate(&self, folder: &Path) {
        replace(&certificate_file(folder), &self.pem);
    }
}

pub fn certificate_file(folder: &Path) -> PathBuf {
    folder.join("cert.pem")
}

pub fn key_file(folder: &Path) -> PathBuf {
    folder.join("key.pem")
}

/// The settings that use the files of this folder.
pub fn settings(folder: &Path) -> String {
    format!(
        "tls.mode = \"files\"\ntls.cert_file = {:?}\ntls.key_file = {:?}\n",
        certificate_file(folder).display().to_string(),
        key_file(folder).display().to_string()
    )
}

/// Replaces a file in one step, as certbot does.
pub fn replace(path: &Path, text: &str) {
    let aside = path.with_extension("aside");
    std::fs::write(&aside, text).expect("written");
    std::fs::rename(&aside, path).expect("renamed");
}

/// The certificate in a PEM file.
pub fn certificate_in(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).expect("a certificate")
}

pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// A client that trusts some certificates, and no others.
#[derive(Clone)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
}

impl TlsClient {
    pub fn trusting<'c>(certificates: impl IntoIterator<Item = &'c CertificateDer<'static>>) -> Self {
        Self::with_versions(certificates, rustls::ALL_VERSIONS)
    }

    pub fn with_versions<'c>(
        certificates: impl IntoIterator<Item = &'c CertificateDer<'static>>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate.clone()).expect("a certificate");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
        let mut config = builder.expect("versions").with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = ["h2", "http/1.1"].map(|name| name.as_bytes().to_vec()).into();
        // Every connection shows the certificate.
        config.resumption = rustls::client::Resumption::disabled();
        Self { config: Arc::new(config) }
    }

    /// Connects and completes the handshake.
    pub fn connect(&self, address: SocketAddr, host: &'static str) -> Result<TlsStream> {
        let name = ServerName::try_from(host).expect("a host");
        let mut session = ClientConnection::new(self.config.clone(), name).map_err(Error::other)?;
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        Ok(StreamOwned::new(session, socket))
    }

    /// The certificate that the server presents.
    pub fn presented(&self, address: SocketAddr) -> Result<CertificateDer<'static>> {
        let stream = self.connect(address, "localhost")?;
        let chain = stream.conn.peer_certificates().unwrap_or_default();
        chain.first().cloned().ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// The status of one request on a connection of its own.
    pub fn status(&self, address: SocketAddr, path: &str) -> Result<u16> {
        let mut stream = self.connect(address, "localhost")?;
        ask(&mut stream, path).map(|(status, _)| status)
    }
}

/// Makes a request and returns the status and the body of the answer. The connection stays open.
pub fn ask(stream: &mut (impl Read + Write), path: &str) -> Result<(u16, String)> {
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
    stream.flush()?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).ok_or(ErrorKind::InvalidData)?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
