//! The canary scenario: the weight of the canary is changed while users call, and who gets what is counted.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use predictgate_e2e::users::{Call, Users};
use predictgate_e2e::wait::within;
use predictgate_e2e::{Envoy, Update, share};
use serde_json::{Value, json};

use crate::backend::{Backend, Kind};
use crate::report::{Columns, Report};

const WORKERS: u32 = 4;

/// The canary's weights of 100, one after the other; the first is the shipped one.
const WEIGHTS: [u32; 4] = [5, 10, 25, 0];

/// What the targets are called, and the versions that their servers have.
const TARGETS: [(&str, i64); 2] = [("stable", 1), ("canary", 2)];

/// Promised from a changed weight until it acts.
const SOON: Duration = Duration::from_secs(1);

struct Rollout {
    report: Report,
    backend: Backend,
    envoy: Envoy,
    users: Users,
    /// The version that answered each user last; empty before the first call.
    had: Vec<i64>,
}

/// What one weight came to.
struct Step {
    weight: u32,
    requests: usize,
    failed: usize,
    /// How long the old weight still answered after the file was replaced.
    acts_after: Option<Duration>,
    /// What each server has counted of one call of each user.
    counted: [u64; 2],
    /// How many users came to each target.
    came: [usize; 2],
}

pub async fn show(kind: Kind, users: usize) -> Result<ExitCode> {
    let mut rollout = Rollout::start(kind, users).await?;
    rollout.report.step(&format!("The canary's weight, {WEIGHTS:?} of 100, while {users} users call"));
    let columns = rollout.report.columns([
        ("weights", 7),
        ("target", 6),
        ("share wanted", 8),
        ("share seen", 8),
        ("may miss", 8),
        ("users", 6),
        ("came", 6),
        ("requests", 6),
        ("failed", 6),
        ("in force after", 8),
    ]);
    for weight in WEIGHTS {
        let step = rollout.step(weight).await?;
        rollout.print(&columns, &step);
        rollout.judge(&step);
    }
    rollout.close();
    Ok(rollout.report.finish())
}

impl Rollout {
    async fn start(kind: Kind, users: usize) -> Result<Self> {
        let mut report = Report::new();
        report.step("A stable and a canary pool, and Envoy with the filter in front");
        let backend = Backend::start(kind).await?;
        let envoy = backend.shipped("canary")?.concurrency(WORKERS).start().await?;
        envoy.wait_until_healthy().await?;
        let calling = Users::connect(&envoy, users).await?;
        report.say(&format!("pools: {}; tfs-v1 is stable, tfs-v2 is the canary", backend.who()));
        report.say(&format!("Envoy: envoy/canary, {WORKERS} workers"));
        report.say(&format!(
            "users: {users}, each bound by x-user-id and calling over {} connections in turn",
            calling.connections()
        ));
        Ok(Self { report, backend, envoy, users: calling, had: Vec::new() })
    }

    /// Puts a weight in force while the users call, and counts who is where then.
    async fn step(&mut self, weight: u32) -> Result<Step> {
        let mut rounds = Vec::new();
        let mut acts_after = None;
        if !self.had.is_empty() {
            let configuration = with_weight(self.envoy.plugin().configuration()?, weight)?;
            let change = async {
                let at = Instant::now();
                let update = self.envoy.configure(&configuration).await?;
                ensure!(update == Update::Accepted, "Envoy has rejected the weight {weight}");
                Ok(at)
            };
            let (at, during) = self.users.call_during(change, within(SOON)).await?;
            acts_after = Some(self.last_of_the_old(&during, at));
            rounds = during;
        }
        let before = self.backend.executed().await?;
        let last = self.users.call(rounds.len()).await?;
        let after = self.backend.executed().await?;
        let has: Vec<_> = last.iter().map(|call| *call.answer.as_ref().unwrap_or(&0)).collect();
        rounds.push(last);
        let came = TARGETS.map(|(_, version)| {
            let moved = self.had.iter().zip(&has).filter(|(had, has)| had != has && **has == version);
            moved.count()
        });
        self.had = has;
        Ok(Step {
            weight,
            requests: rounds.iter().map(Vec::len).sum(),
            failed: rounds.iter().flatten().filter(|call| call.answer.is_err()).count(),
            acts_after,
            counted: [after[0] - before[0], after[1] - before[1]],
            came,
        })
    }

    /// How long after `at` a user who has moved since was still answered as before.
    fn last_of_the_old(&self, rounds: &[Vec<Call>], at: Instant) -> Duration {
        let now = rounds.last().map_or(&[][..], Vec::as_slice);
        let old = rounds.iter().flat_map(|round| {
            let calls = round.iter().zip(now).zip(&self.had);
            calls.filter(|((call, now), had)| call.answer == Ok(**had) && call.answer != now.answer)
        });
        old.map(|((call, _), _)| call.begun.saturating_duration_since(at)).max().unwrap_or_default()
    }

    fn print(&self, columns: &Columns<10>, step: &Step) {
        for (place, (target, _)) in TARGETS.iter().enumerate() {
            let share = wanted(step.weight)[place];
            let users = self.had.len();
            let of_all = |count: f64| format!("{:.2} %", 100.0 * count / users as f64);
            let first = |text: String| if place == 0 { text } else { String::new() };
            columns.row(&[
                first(format!("{}:{}", 100 - step.weight, step.weight)),
                (*target).to_owned(),
                format!("{:.2} %", 100.0 * share),
                of_all(step.counted[place] as f64),
                of_all(share::tolerance(users, share)),
                step.counted[place].to_string(),
                if step.acts_after.is_some() { step.came[place].to_string() } else { "-".to_owned() },
                first(step.requests.to_string()),
                first(step.failed.to_string()),
                first(step.acts_after.map_or("-".to_owned(), |it| format!("{} ms", it.as_millis()))),
            ]);
        }
    }

    /// Holds a step to what a split promises; what does not hold is said.
    fn judge(&mut self, step: &Step) {
        let (users, weight) = (self.had.len(), step.weight);
        self.report.holds(&format!("weight {weight}: requests that failed"), &step.failed, &0);
        let soon = within(SOON);
        let in_time = step.acts_after.is_none_or(|it| it < soon);
        self.report.holds(&format!("weight {weight}: it acts within {soon:?}"), &in_time, &true);
        let answered =
            TARGETS.map(|(_, version)| self.had.iter().filter(|it| **it == version).count() as u64);
        self.report.holds(
            &format!("weight {weight}: users by their answers, and as the servers counted"),
            &step.counted,
            &answered,
        );
        for ((target, _), (count, share)) in TARGETS.iter().zip(step.counted.into_iter().zip(wanted(weight)))
        {
            let holds = share::holds(count as usize, users, share);
            self.report.holds(&format!("weight {weight}: the share of {target} holds"), &holds, &true);
        }
        // Only the last weight is lower than the one before it.
        let against = if weight == 0 { step.came[1] } else { step.came[0] };
        self.report.holds(&format!("weight {weight}: users that moved against it"), &against, &0);
    }

    fn close(&self) {
        self.report.say("");
        self.report.say("seen: what the servers counted while each user called once");
        self.report
            .say("may miss: 4.5 standard deviations of a binomial count; 7 of a million are further off");
        self.report.say("came: users that moved to this target when the weight changed");
        self.report
            .say("in force after: the last request that was still answered as before, from when the file");
        self.report.say("was replaced; connections stay open");
    }
}

/// The shares of the targets.
fn wanted(weight: u32) -> [f64; 2] {
    let canary = f64::from(weight) / 100.0;
    [1.0 - canary, canary]
}

/// The shipped configuration with this weight of the canary.
fn with_weight(mut configuration: Value, weight: u32) -> Result<String> {
    let routes = configuration["models"][0]["routes"].as_array_mut();
    let rollout = routes.into_iter().flatten().find(|route| route["name"] == "rollout");
    rollout.context("envoy/canary/predictgate.yaml has no route rollout")?["split"] = json!([
        { "target": TARGETS[0].0, "weight": 100 - weight },
        { "target": TARGETS[1].0, "weight": weight },
    ]);
    Ok(configuration.to_string())
}
