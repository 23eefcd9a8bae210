//! Bodies of requests, which must arrive at a minimum rate, and of answers, which report when they are complete.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http_body_util::combinators::BoxBody;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use super::Tally;
use super::connection::Connection;

/// The minimum rate applies to each interval of this length separately: a fast start does not offset a slow end.
const INTERVAL: Duration = Duration::from_secs(5);

/// Counts the bytes of a body in the current interval.
#[derive(Debug)]
struct Pace {
    bytes_min: u64,
    bytes: u64,
}

impl Pace {
    fn new(rate_bytes_s: u64) -> Self {
        Self { bytes_min: rate_bytes_s * INTERVAL.as_secs(), bytes: 0 }
    }

    fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// Ends the interval and begins the next one. Returns whether it reached the minimum rate.
    fn end_interval(&mut self) -> bool {
        std::mem::take(&mut self.bytes) >= self.bytes_min
    }
}

/// The body of a request. Fails with `TimedOut` if it arrives too slowly.
pub(super) struct Paced {
    inner: Incoming,
    connection: Arc<Connection>,
    tally: Arc<Tally>,
    pace: Pace,
    /// The end of the current interval. Created on the first wait, because most bodies arrive at once.
    interval: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    pub(super) fn new(inner: Incoming, connection: Arc<Connection>, tally: Arc<Tally>, rate_bytes_s: u64) -> Self {
        Self { inner, connection, tally, pace: Pace::new(rate_bytes_s), interval: None }
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            this.connection.has_body(Instant::now());
            let frame = frame.map(|frame| frame.map_err(io::Error::other));
            if let Some(bytes) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
                this.pace.add(bytes.len());
            }
            return Poll::Ready(frame);
        }
        this.connection.waits_for_body(Instant::now());
        let interval = this.interval.get_or_insert_with(|| Box::pin(tokio::time::sleep(INTERVAL)));
        loop {
            ready!(interval.as_mut().poll(cx));
            if !this.pace.end_interval() {
                this.tally.add(&this.tally.slow_bodies);
                let why = "the body arrives more slowly than limits.body_rate_bytes_s allows";
                return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, why))));
            }
            interval.as_mut().reset(tokio::time::Instant::now() + INTERVAL);
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        self.connection.has_body(Instant::now());
    }
}

/// The body of an answer. hyper drops it when it has taken all of it for sending.
pub(super) struct Answer {
    pub(super) inner: BoxBody<Bytes, io::Error>,
    pub(super) connection: Arc<Connection>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.answered(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_at_the_minimum_rate_passes_and_one_byte_less_fails() {
        let mut pace = Pace::new(100);
        pace.add(499);
        assert!(!pace.end_interval());
        pace.add(300);
        pace.add(200);
        assert!(pace.end_interval());
        assert!(!pace.end_interval(), "bytes of the previous interval do not count");
    }
}
