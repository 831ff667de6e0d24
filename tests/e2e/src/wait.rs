//! Waiting for a condition instead of for a time.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Long enough for anything on a busy machine; only a failure takes this long.
pub const DEADLINE: Duration = Duration::from_secs(20);

const PAUSE: Duration = Duration::from_millis(10);

/// Asks again until there is an answer.
///
/// # Errors
///
/// After [`DEADLINE`], with `what` was awaited.
pub async fn until<T, F>(what: impl Display, mut ask: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        if DEADLINE < start.elapsed() {
            bail!("waited {} s in vain for {what}", DEADLINE.as_secs());
        }
        tokio::time::sleep(PAUSE).await;
    }
}
