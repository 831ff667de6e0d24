//! The ejection scenario: a canary that goes bad is taken out of traffic, tried, and brought back; then rolled back for
//! good.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use model_server::{Code, Fault, INJECTED, Place};
use predictgate_e2e::log::{self, Line};
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::traffic::Traffic;
use predictgate_e2e::users::{Call, Users};
use predictgate_e2e::wait::{until, within};
use predictgate_e2e::{Envoy, Pools, Update};
use serde_json::{Value, json};

use crate::backend::{Backend, Kind};
use crate::report::{Columns, Report};

const WORKERS: u32 = 4;
const USERS: usize = 1_000;
/// Calls a second.
const RATE: u32 = 200;
const CANARY: i64 = 2;
/// The canary's, in thousandths.
const WEIGHT: u32 = 100;
/// Workers learn of a decision within a tick of 100 ms; the rest is for four of them that share the machine with the users
/// and the servers.
const SOON: Duration = Duration::from_millis(500);
/// What the log's times are exact to.
const LOG_STEP: Duration = Duration::from_millis(1);

struct Show {
    report: Report,
    columns: Columns<6>,
    pools: Pools,
    envoy: Envoy,
    traffic: Traffic,
    begun: Instant,
    /// How many calls the rows have told of.
    told: usize,
    /// How many lines of the log have been waited for.
    read: usize,
}

/// Shows the scenario with this `base_ejection_time`; the times that follow from it are in proportion.
pub async fn show(kind: Kind, ejection_seconds: u32) -> Result<ExitCode> {
    let mut report = Report::new();
    report.step("A stable and a canary pool, and Envoy with the filter in front");
    let Backend::Native(pools) = Backend::start(kind).await? else {
        bail!("TensorFlow does not fail on demand: show this scenario with --backend model-server");
    };
    let scenario = pools.shipped("ejection")?.concurrency(WORKERS);
    let scenario = scenario.reconfigured(|configuration| set_times(configuration, ejection_seconds))?;
    let envoy = scenario.start().await?;
    envoy.wait_until_healthy().await?;
    let users = Users::connect(&envoy, USERS).await?;
    report
        .say("pools: native model servers; tfs-v1 is stable, tfs-v2 is the canary with a tenth of the users");
    report.say(&format!("Envoy: envoy/ejection, {WORKERS} workers"));
    report.say(&format!("users: {USERS}, {RATE} calls a second over {} connections", users.connections()));
    report.step("Version 2 begins to fail: ejected, tried, and back");
    let columns = report.columns([
        ("second", 6),
        ("calls", 5),
        ("canary", 6),
        ("failed", 6),
        ("weight", 6),
        ("what happened", 13),
    ]);
    let traffic = Traffic::start(&users, RATE);
    let mut show = Show { report, columns, pools, envoy, traffic, begun: Instant::now(), told: 0, read: 0 };
    show.ejection(Duration::from_secs(ejection_seconds.into())).await?;
    show.report.step("The guard enforced: version 2 fails again, and stays out until it is let in");
    show.roll_back(Duration::from_secs(ejection_seconds.into())).await?;
    show.close().await
}

fn set_times(configuration: &mut Value, ejection_seconds: u32) {
    let detection = &mut configuration["models"][0]["outlier_detection"];
    detection["base_ejection_time"] = json!(format!("{ejection_seconds}s"));
    detection["recovery_step_time"] = json!(format!("{}ms", 200 * ejection_seconds));
}

impl Show {
    async fn ejection(&mut self, base: Duration) -> Result<()> {
        self.pass(Duration::from_secs(1)).await?;
        self.row("all is well").await?;
        self.fail();
        self.row("version 2 begins to answer INTERNAL, in trailers").await?;
        let ejected = self.said("ejected: ").await?;
        self.wait_for_weight(0).await?;
        self.row(&ejected.text).await?;
        let shadow =
            self.log().iter().any(|line| line.text.starts_with("shadow: would have been rolled back"));
        let tried = self.said("ejected: ").await?;
        self.row(&tried.text).await?;
        self.heal();
        let well = Instant::now();
        self.row("version 2 is well again").await?;
        let returned = self.said("returned: ").await?;
        self.row(&returned.text).await?;
        self.way_back().await?;
        let whole = well.elapsed();
        // The probe goes when the ejection has lasted its time.
        let between = self.failures(ejected.at + base / 2, tried.at + LOG_STEP);
        self.report.check("the row of failures ejects", &cause(&ejected.text), &"consecutive_failures");
        self.report.check("the guard, in shadow mode, would have rolled back", &shadow, &true);
        self.report.check("a probe fails, and ejects for longer", &cause(&tried.text), &"failed_probe");
        self.report.check("callers that failed while it was out: the probe's", &between, &1);
        // Twice ejected is twice as long; three steps lead to the whole weight.
        let in_time = whole <= 2 * base + 3 * base / 5 + within(2 * SOON);
        self.report.check(
            &format!("the whole weight is back {:.1} s after version 2 was well", whole.as_secs_f64()),
            &in_time,
            &true,
        );
        Ok(())
    }

    async fn roll_back(&mut self, base: Duration) -> Result<()> {
        self.configure(|it| rollout(it)["guard"]["mode"] = json!("enforce")).await?;
        self.row("the guard's mode is enforce").await?;
        let ill = Instant::now();
        self.fail();
        self.row("version 2 begins to answer INTERNAL, in trailers").await?;
        let rolled_back = self.said("rolled back: ").await?;
        self.wait_for_weight(0).await?;
        self.row(&rolled_back.text).await?;
        self.heal();
        let well = Instant::now();
        self.row("version 2 is well again").await?;
        self.configure(|it| it["unmatched"] = json!("pass")).await?;
        self.pass(base.max(2 * within(SOON))).await?;
        self.row("another file, with the guard as it was").await?;
        let late = rolled_back.at + within(SOON);
        let to_canary = self.count(|call| late < call.begun && is_canarys(call));
        self.configure(|it| rollout(it)["guard"]["epoch"] = json!(2)).await?;
        let cleared = self.said("roll-back cleared").await?;
        self.row(&cleared.text).await?;
        self.way_back().await?;
        let reacted = rolled_back.at.saturating_duration_since(self.fifth_failure(ill, well)?);
        self.report.check(
            &format!("rolled back {} ms after the failure that completed the row", reacted.as_millis()),
            &(reacted <= within(SOON)),
            &true,
        );
        self.report.check("calls of the canary while it was rolled back", &to_canary, &0);
        self.report.check("another epoch lets the canary in", &self.weight().await?, &WEIGHT);
        Ok(())
    }

    /// Shows each step until the canary has its whole weight.
    async fn way_back(&mut self) -> Result<()> {
        let mut weight = 0;
        while weight < WEIGHT {
            weight = self.next_weight(weight).await?;
            self.row("a step of the way back").await?;
        }
        Ok(())
    }

    async fn close(mut self) -> Result<ExitCode> {
        let calls = self.traffic.stop().await?;
        let is_stables = |call: &&Call| call.answer.as_ref().is_err_and(|error| !error.contains(INJECTED));
        let others = calls.iter().filter(is_stables).count();
        let failed = calls.iter().filter(|call| call.answer.is_err()).count();
        self.report.step("All together");
        self.report
            .say(&format!("{} calls, of which {failed} failed, each of them the canary's", calls.len()));
        self.report.check("calls that failed otherwise than the canary made them", &others, &0);
        Ok(self.report.finish())
    }

    fn fail(&self) {
        self.pools.v2.set_fault(MODEL, CANARY, Some(Fault::fail(1.0, Code::Internal, Place::AfterHeaders)));
    }

    fn heal(&self) {
        self.pools.v2.set_fault(MODEL, CANARY, None);
    }

    /// Replaces the file by one with another configuration.
    async fn configure(&mut self, change: impl FnOnce(&mut Value)) -> Result<()> {
        let mut configuration = self.envoy.plugin().configuration()?;
        change(&mut configuration);
        let update = self.envoy.configure(&configuration.to_string()).await?;
        ensure!(update == Update::Accepted, "Envoy has rejected {configuration}");
        Ok(())
    }

    fn log(&self) -> Vec<Line> {
        log::lines(&self.envoy.log())
    }

    /// Waits for the next line of the log that begins with these words.
    async fn said(&mut self, words: &str) -> Result<Line> {
        let (place, line) = until(format!("the log to say {words:?}"), || async {
            let mut lines = self.log().into_iter().enumerate().skip(self.read);
            Ok(lines.find(|(_, line)| line.text.starts_with(words)))
        })
        .await?;
        self.read = place + 1;
        Ok(line)
    }

    async fn pass(&self, time: Duration) -> Result<()> {
        let start = Instant::now();
        until("time to pass", || async { Ok((time <= start.elapsed()).then_some(())) }).await
    }

    /// The canary's weight in thousandths, as the metrics have it.
    async fn weight(&self) -> Result<u32> {
        let labels = [("model", MODEL), ("route", "rollout"), ("target", "canary")];
        let samples = self.envoy.admin.prometheus().await?;
        let weight = samples.iter().find(|it| it.is("predictgate_weight", &labels));
        Ok(weight.context("no predictgate_weight")?.value as u32)
    }

    async fn wait_for_weight(&self, weight: u32) -> Result<()> {
        until(format!("the weight {weight}"), || async { Ok((self.weight().await? == weight).then_some(())) })
            .await
    }

    /// Waits until the weight is above this.
    async fn next_weight(&self, above: u32) -> Result<u32> {
        until(format!("a weight above {above}"), || async {
            let weight = self.weight().await?;
            Ok((above < weight).then_some(weight))
        })
        .await
    }

    fn count(&self, of: impl Fn(&Call) -> bool) -> usize {
        self.traffic.ended().iter().filter(|call| of(call)).count()
    }

    /// Calls that began between two moments and failed.
    fn failures(&self, from: Instant, to: Instant) -> usize {
        self.count(|call| from < call.begun && call.begun <= to && call.answer.is_err())
    }

    /// When the fifth failed answer came between two moments.
    fn fifth_failure(&self, from: Instant, to: Instant) -> Result<Instant> {
        let calls = self.traffic.ended();
        let ends = calls.iter().filter(|call| call.answer.is_err()).map(predictgate_e2e::traffic::end);
        let mut ends: Vec<_> = ends.filter(|end| (from..=to).contains(end)).collect();
        ends.sort();
        ends.get(4).copied().context("fewer than five failures")
    }

    /// Says what happened, and what became of the calls since the last row.
    async fn row(&mut self, what: &str) -> Result<()> {
        let (calls, weight) = (self.traffic.ended(), self.weight().await?);
        let new = &calls[self.told..];
        self.told = calls.len();
        let count = |of: fn(&Call) -> bool| new.iter().filter(|call| of(call)).count();
        self.columns.row(&[
            format!("{:.1}", self.begun.elapsed().as_secs_f64()),
            new.len().to_string(),
            count(is_canarys).to_string(),
            count(|call| call.answer.is_err()).to_string(),
            format!("{:.1} %", f64::from(weight) / 10.0),
            what.to_owned(),
        ]);
        Ok(())
    }
}

/// The route that deals out, the last.
fn rollout(configuration: &mut Value) -> &mut Value {
    &mut configuration["models"][0]["routes"][4]
}

/// Nobody else fails.
fn is_canarys(call: &Call) -> bool {
    call.answer.as_ref().map_or(true, |version| *version == CANARY)
}

/// The cause that a line of the log gives.
fn cause(line: &str) -> &str {
    line.split_once("cause=").map_or("", |(_, cause)| cause)
}
