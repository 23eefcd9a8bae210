//! Waiting for what a site or another program does on its own.

use std::time::{Duration, Instant};

/// The answer of a look: `false` and `None` mean not yet.
pub trait Sight {
    type Seen;

    fn seen(self) -> Option<Self::Seen>;
}

impl Sight for bool {
    type Seen = ();

    fn seen(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Sight for Option<T> {
    type Seen = T;

    fn seen(self) -> Option<T> {
        self
    }
}

/// Looks again and again until something is seen, and returns it.
pub async fn eventually<S: Sight>(what: &str, mut look: impl AsyncFnMut() -> S) -> S::Seen {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(seen) = look().await.seen() {
            return seen;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
