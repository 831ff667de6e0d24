//! Many users who call one model, over several connections.

use std::cell::OnceCell;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use model_server::client::{Asked, Client, predict_request};
use model_server::messages::PredictRequest;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::Envoy;
use crate::pools::MODEL;
use crate::wait::until;

/// The header that says who calls.
pub const USER: &str = "x-user-id";

/// How many calls of a connection are under way at once.
const AT_ONCE: usize = 2;

/// The only input of every call.
pub(crate) const X: f32 = 1.0;

/// Users with connections to one Envoy. Each call of a user goes over another connection.
#[derive(Clone)]
pub struct Users {
    pub(crate) names: Arc<[String]>,
    pub(crate) clients: Arc<[Client]>,
}

/// One call and its answer.
#[derive(Clone, Debug)]
pub struct Call {
    pub begun: Instant,
    pub took: Duration,
    /// The version that computed the answer, or what went wrong.
    pub answer: Result<i64, String>,
}

impl Users {
    /// So many users, with connections to every worker.
    ///
    /// # Errors
    ///
    /// When Envoy does not take the connections.
    pub async fn connect(envoy: &Envoy, users: usize) -> Result<Self> {
        let mut clients = Vec::new();
        let mut taken = envoy.connections_by_worker().await?;
        let before = taken.iter().sum::<u64>();
        // The kernel deals connections out to the workers by chance, so some get more than others.
        while clients.len() < 4 * taken.len() || taken.contains(&0) {
            clients.push(Client::connect(envoy.addr).await?);
            let expected = before + clients.len() as u64;
            taken = until(format!("{} connections to be taken", clients.len()), || async {
                let taken = envoy.connections_by_worker().await?;
                Ok((taken.iter().sum::<u64>() == expected).then_some(taken))
            })
            .await?;
        }
        let names = (0..users).map(|user| format!("user-{user}")).collect();
        Ok(Self { names, clients: clients.into() })
    }

    pub fn names(&self) -> &[String] {
        &self.names
    }

    pub fn connections(&self) -> usize {
        self.clients.len()
    }

    /// Lets every user call once, and gives the calls in the order of the names. In another `round` a user has another connection.
    ///
    /// # Errors
    ///
    /// When the calls cannot be made; one that fails is an answer.
    pub async fn call(&self, round: usize) -> Result<Vec<Call>> {
        let lanes = AT_ONCE * self.clients.len();
        let request = Arc::new(predict_request(MODEL, Asked::Latest, &[X]));
        let mut running = JoinSet::new();
        for lane in 0..lanes {
            let (users, request) = (self.clone(), Arc::clone(&request));
            running.spawn(async move { users.call_of(lane, lanes, round, &request).await });
        }
        let mut calls = vec![None; self.names.len()];
        while let Some(lane) = running.join_next().await {
            for (user, call) in lane? {
                calls[user] = Some(call);
            }
        }
        Ok(calls.into_iter().flatten().collect())
    }

    /// Lets every user call, round after round, and lets `act` happen meanwhile: after one round, during the next.
    /// The last round begins at least `after` the end of it.
    ///
    /// # Errors
    ///
    /// When the calls cannot be made, or `act` fails.
    pub async fn call_during<T>(
        &self,
        act: impl Future<Output = Result<T>>,
        after: Duration,
    ) -> Result<(T, Vec<Vec<Call>>)> {
        let (begin, begun) = oneshot::channel();
        let ended = OnceCell::new();
        let acting = async {
            // It fails only when the calls have failed, which says so.
            let _ = begun.await;
            let output = act.await;
            let _ = ended.set(Instant::now());
            output
        };
        let calling = async {
            let mut rounds = vec![self.call(0).await?];
            let _ = begin.send(());
            loop {
                let is_last = ended.get().is_some_and(|ended| *ended + after < Instant::now());
                rounds.push(self.call(rounds.len()).await?);
                if is_last {
                    return Ok(rounds);
                }
            }
        };
        tokio::try_join!(acting, calling)
    }

    async fn call_of(
        &self,
        lane: usize,
        lanes: usize,
        round: usize,
        request: &PredictRequest,
    ) -> Vec<(usize, Call)> {
        let mut calls = Vec::new();
        for user in (0..self.names.len()).filter(|user| (user + round) % lanes == lane) {
            let client = self.clients[lane % self.clients.len()].clone();
            let client = client.with_metadata(USER, &self.names[user]);
            calls.push((user, call(&client, request).await));
        }
        calls
    }
}

pub(crate) async fn call(client: &Client, request: &PredictRequest) -> Call {
    let begun = Instant::now();
    let answer = match client.predict(request).await.map(|reply| reply.ok()) {
        // A version adds one more than its number to the half of x.
        Ok(Ok(response)) => match response.values() {
            [y] => Ok((y - X / 2.0 - 1.0) as i64),
            values => Err(format!("{} values for one", values.len())),
        },
        Ok(Err(error)) => Err(error.to_string()),
        Err(broken) => Err(broken.to_string()),
    };
    Call { begun, took: begun.elapsed(), answer }
}
