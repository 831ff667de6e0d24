//! Calls at a steady rate, whatever becomes of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use model_server::client::{Asked, predict_request};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use crate::pools::MODEL;
use crate::users::{Call, USER, Users, X, call};

/// Users who call in turn, so many times a second all together, and do not wait for each other's answers: a target that
/// hangs gets as many calls as one that answers.
pub struct Traffic {
    ended: Arc<Mutex<Vec<Call>>>,
    stop: oneshot::Sender<()>,
    sender: JoinHandle<JoinSet<()>>,
}

impl Traffic {
    /// Begins `rate` calls a second.
    pub fn start(users: &Users, rate: u32) -> Self {
        let ended = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = oneshot::channel();
        let sender = tokio::spawn(send(users.clone(), rate, Arc::clone(&ended), stopped));
        Self { ended, stop, sender }
    }

    /// The calls that have ended so far, in the order of their ends.
    pub fn ended(&self) -> Vec<Call> {
        lock(&self.ended).clone()
    }

    /// Begins no more calls, waits for those under way, and gives all in the order of their beginnings.
    ///
    /// # Errors
    ///
    /// When a call panicked.
    pub async fn stop(self) -> Result<Vec<Call>> {
        // The sender is gone only when it panicked, which joining it tells.
        let _ = self.stop.send(());
        let mut running = self.sender.await?;
        while let Some(call) = running.join_next().await {
            call?;
        }
        let mut calls = std::mem::take(&mut *lock(&self.ended));
        calls.sort_by_key(|call| call.begun);
        Ok(calls)
    }
}

async fn send(
    users: Users,
    rate: u32,
    ended: Arc<Mutex<Vec<Call>>>,
    mut stopped: oneshot::Receiver<()>,
) -> JoinSet<()> {
    let request = Arc::new(predict_request(MODEL, Asked::Latest, &[X]));
    let mut due = tokio::time::interval(Duration::from_secs(1) / rate);
    // What a busy machine has kept from being sent is sent as soon as it can be.
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut running = JoinSet::new();
    for (client, name) in users.clients.iter().cycle().zip(users.names.iter().cycle()) {
        tokio::select! {
            _ = due.tick() => (),
            _ = &mut stopped => break,
        }
        let client = client.clone().with_metadata(USER, name);
        let (request, ended) = (Arc::clone(&request), Arc::clone(&ended));
        running.spawn(async move {
            let call = call(&client, &request).await;
            lock(&ended).push(call);
        });
        while running.try_join_next().is_some() {}
    }
    running
}

fn lock(calls: &Mutex<Vec<Call>>) -> MutexGuard<'_, Vec<Call>> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When a call ended.
pub fn end(call: &Call) -> Instant {
    call.begun + call.took
}
