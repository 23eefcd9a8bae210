//! TLS of the network listener: the current certificate, how it is replaced while the server runs, and the handshake.
//!
//! The only user of tokio-rustls. A certificate that cannot be used never replaces one that can: the server keeps the
//! old one, and the health report names the fault.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::authority;
use super::stream::Stream;
use crate::kernel::config::{Config, TlsMode};
use crate::kernel::ids::Timestamp;
use crate::kernel::runtime::health::{Fault, Health};

/// How often the certificate is read again.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Largest certificate or key file. A chain has a few kilobytes.
const FILE_BYTES_MAX: u64 = 1_048_576;
/// The first byte of a TLS connection: the type of a handshake record.
const HANDSHAKE: u8 = 0x16;

const CERTIFICATE: Fault = Fault {
    part: "tls",
    word: "certificate",
    message: "the certificate cannot be replaced, and the previous one stays in use: see the log",
    is_fatal: false,
};

/// The certificate that new connections get.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// Where the certificate comes from.
#[derive(Debug, Clone)]
enum Source {
    Files { certificate: PathBuf, key: PathBuf },
    Local { data: PathBuf },
}

impl Source {
    /// The source that the settings name; `None` without TLS.
    fn find(config: &Config) -> Option<Self> {
        match config.tls_mode {
            TlsMode::Off => None,
            TlsMode::Files => {
                Some(Self::Files { certificate: config.tls_cert_file.clone(), key: config.tls_key_file.clone() })
            }
            TlsMode::Local => Some(Self::Local { data: config.data.clone() }),
        }
    }

    /// Renews a certificate of our own authority if that is due.
    fn renew(&self) -> Result<(), String> {
        let Self::Local { data } = self else { return Ok(()) };
        if authority::renew_if_due(data, Timestamp::now())? {
            tracing::info!("the certificate was renewed");
        }
        Ok(())
    }

    fn read(&self) -> Result<CertifiedKey, String> {
        match self {
            Self::Files { certificate, key } => read_pair(certificate, key),
            Self::Local { data } => {
                let both = authority::certificate_file(data);
                if !both.exists() {
                    return Err("tls.mode is local, and there is no certificate yet: make one with `roster tls local --host NAME`, where NAME is the name or address at which devices reach this server".into());
                }
                read_pair(&both, &both)
            }
        }
    }
}

fn provider() -> CryptoProvider {
    ring::default_provider()
}

/// Reads a certificate with its chain, and its key. Fails if they do not belong together.
fn read_pair(certificate: &Path, key: &Path) -> Result<CertifiedKey, String> {
    let chain = CertificateDer::pem_slice_iter(&read_file(certificate)?).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|e| format!("{} is not a PEM file of certificates: {e}", certificate.display()))?;
    if chain.is_empty() {
        return Err(format!("{} has no certificate: it must be a PEM file", certificate.display()));
    }
    let private = PrivateKeyDer::from_pem_slice(&read_file(key)?)
        .map_err(|e| format!("{} has no private key that can be read: {e}", key.display()))?;
    CertifiedKey::from_der(chain, private, &provider()).map_err(|e| match e {
        Error::InconsistentKeys(_) => {
            format!("the key in {} does not belong to the certificate in {}", key.display(), certificate.display())
        }
        e => format!("{} and {} cannot be used: {e}", certificate.display(), key.display()),
    })
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    match read {
        Ok(count) if count as u64 <= FILE_BYTES_MAX => Ok(bytes),
        Ok(_) => Err(format!("{} is too large for a certificate or key", path.display())),
        Err(e) => Err(format!("{} cannot be read: {e}", path.display())),
    }
}

/// Checks that the certificate of the settings can be used.
pub fn check(config: &Config) -> Result<(), String> {
    Source::find(config).map_or(Ok(()), |source| source.read().map(drop))
}

/// TLS of a running server.
pub struct Tls {
    acceptor: TlsAcceptor,
    current: Arc<Current>,
    source: Source,
    /// Held while the certificate is replaced, because a signal and the clock can both cause that.
    refreshing: Mutex<()>,
}

impl Tls {
    /// Reads the certificate that the settings name; `None` without TLS.
    pub fn open(config: &Config) -> Result<Option<Arc<Self>>, String> {
        let Some(source) = Source::find(config) else { return Ok(None) };
        if let Err(why) = source.renew() {
            tracing::warn!("the certificate was not renewed: {why}");
        }
        let current = Arc::new(Current(ArcSwap::from_pointee(source.read()?)));
        let builder = ServerConfig::builder_with_provider(Arc::new(provider()));
        // TLS 1.2 and 1.3.
        let builder = builder.with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
        let mut settings = builder.with_no_client_auth().with_cert_resolver(current.clone());
        settings.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(settings));
        Ok(Some(Arc::new(Self { acceptor, current, source, refreshing: Mutex::default() })))
    }

    /// The first host of a certificate of our own authority.
    pub fn host(&self) -> Option<String> {
        match &self.source {
            Source::Files { .. } => None,
            Source::Local { data } => authority::hosts(data).into_iter().next(),
        }
    }

    /// Reads the certificate again, and renews it if that is due. Reports whether that is possible.
    pub async fn refresh(self: &Arc<Self>, health: &Arc<Health>) {
        let (tls, health) = (self.clone(), health.clone());
        // The files may be on a disk that sleeps, or on a network.
        let done = tokio::task::spawn_blocking(move || tls.refresh_now(&health)).await;
        if let Err(e) = done {
            tracing::error!(error = %e, "the certificate was not read");
        }
    }

    fn refresh_now(&self, health: &Health) {
        let _refreshing = self.refreshing.lock().unwrap_or_else(PoisonError::into_inner);
        let renewed = self.source.renew();
        let read = self.source.read().map(|read| {
            if read.cert != self.current.0.load().cert {
                self.current.0.store(Arc::new(read));
                tracing::info!("new connections get another certificate");
            }
        });
        match renewed.and(read) {
            Ok(()) => health.clear(CERTIFICATE.word),
            Err(why) => health.report(CERTIFICATE, &why),
        }
    }

    /// Reads the certificate every minute. Does not return.
    pub async fn watch(self: Arc<Self>, health: Arc<Health>) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            self.refresh(&health).await;
        }
    }

    /// Completes the handshake. Answers a client that does not speak TLS with a sentence that names `url`, and returns
    /// `None`.
    pub(super) async fn secure<I>(&self, mut io: Stream<I>, url: &str) -> io::Result<Option<TlsStream<Stream<I>>>>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let mut first = [0];
        if io.read(&mut first).await? == 0 {
            return Ok(None);
        }
        if first[0] != HANDSHAKE {
            io.write_all(plain_answer(url).as_bytes()).await?;
            io.shutdown().await?;
            return Ok(None);
        }
        io.first = Some(first[0]);
        self.acceptor.accept(io).await.map(Some)
    }
}

/// The answer to a request without TLS.
fn plain_answer(url: &str) -> String {
    let body = format!("This port accepts only https: use {url}\n");
    let length = body.len();
    format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}
