//! Waiting for a condition instead of for a time, and how long what must be soon may take.

use std::env;
use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Long enough for anything on a busy machine; only a failure takes this long.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// What a machine that has other work may add to a time that follows from the design.
///
/// It says nothing of the filter, so it only has to be short of whatever a test tells from the promised.
pub const BUSY: Duration = Duration::from_millis(1500);

/// Whether `PREDICTGATE_IDLE` says that this machine has nothing else to do, as `cargo xtask soak` does.
pub fn is_idle() -> bool {
    env::var_os("PREDICTGATE_IDLE").is_some()
}

/// How long something may take of which a time is promised: no longer on a machine that has nothing else to do, and
/// elsewhere [`BUSY`] longer.
pub fn within(promised: Duration) -> Duration {
    if is_idle() { promised } else { promised + BUSY }
}

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
