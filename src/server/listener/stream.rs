//! The byte stream of a connection. Reports reads and writes to [`Connection`], which tracks what the client does.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Connection;

/// How many bytes are read and dropped after our end of the connection. Closing at once could make the client lose the
/// answer (TCP reset).
const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;

pub(super) struct Stream<I> {
    pub(super) inner: I,
    pub(super) connection: Arc<Connection>,
    pub(super) is_stopping: Arc<AtomicBool>,
    /// Bytes that were dropped since our end; `None` before it.
    pub(super) dropped: Option<usize>,
    /// A byte that was read to find out what the client speaks, and is read again.
    pub(super) first: Option<u8>,
}

impl<I: AsyncWrite> Stream<I> {
    fn note_written(&self, result: &Poll<io::Result<usize>>) {
        match result {
            Poll::Pending => self.connection.write_waits(Instant::now()),
            Poll::Ready(written) => self.connection.wrote(Instant::now(), *written.as_ref().unwrap_or(&0)),
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Stream<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buffer.remaining() > 0
            && let Some(byte) = this.first.take()
        {
            buffer.put_slice(&[byte]);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let result = Pin::new(&mut this.inner).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            this.connection.received(Instant::now());
        }
        result
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_write(cx, bytes);
        this.note_written(&result);
        result
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_write_vectored(cx, pieces);
        this.note_written(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_flush(cx);
        match &result {
            Poll::Pending => this.connection.write_waits(Instant::now()),
            Poll::Ready(_) => this.connection.flushed(Instant::now()),
        }
        result
    }

    /// Ends our side, then waits until the client ends its own, and drops what it still sends.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.dropped.is_none() {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
            this.dropped = Some(0);
            this.connection.lingers(Instant::now());
        }
        let dropped = this.dropped.get_or_insert(0);
        let mut bytes = [0; 8 * 1024];
        while *dropped < LINGER_BYTES_MAX && !this.is_stopping.load(Ordering::Acquire) {
            let mut buffer = ReadBuf::new(&mut bytes);
            match ready!(Pin::new(&mut this.inner).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => *dropped += buffer.filled().len(),
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
