//! The rate-limit scenario: a greedy tenant beside a modest one, who must not notice.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use model_server::Code;
use model_server::client::{Asked, Client, predict_request, rest};
use model_server::messages::PredictRequest;
use predictgate_e2e::Envoy;
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::wait::DEADLINE;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, interval};

use crate::backend::{Backend, Kind};
use crate::report::{Columns, Report};

const WORKERS: u32 = 4;
const TENANT: &str = "x-tenant";
/// Calls of the modest tenant in a second, half of what it may.
const MODEST: u32 = 5;
/// Connections of the greedy tenant, each of which calls again as soon as it is answered.
const GREEDY: usize = 8;
/// So much of what the limit admits must be admitted while more is asked for.
const LEAST: f64 = 0.97;

struct Tenants {
    report: Report,
    backend: Backend,
    envoy: Envoy,
    /// Requests of a tenant in a second, and at once.
    rate: u64,
    burst: u64,
}

/// What a tenant's calls came to.
#[derive(Clone, Debug, Default)]
struct Calls {
    passed: u64,
    refused: u64,
    /// What was neither, which never happens.
    other: Vec<String>,
    took: Vec<Duration>,
}

impl Calls {
    async fn call(&mut self, client: &Client, request: &PredictRequest) -> Result<()> {
        let begun = Instant::now();
        let reply = client.predict(request).await?;
        match (reply.code(), reply.header("x-predictgate-reason")) {
            (Code::Ok, None) => {
                self.passed += 1;
                self.took.push(begun.elapsed());
            }
            (Code::ResourceExhausted, Some("rate_limited")) => self.refused += 1,
            (code, reason) => self.other.push(format!("{code:?} {reason:?} {}", reply.text)),
        }
        Ok(())
    }

    fn add(&mut self, more: Self) {
        self.passed += more.passed;
        self.refused += more.refused;
        self.other.extend(more.other);
        self.took.extend(more.took);
    }

    fn sent(&self) -> u64 {
        self.passed + self.refused + self.other.len() as u64
    }

    fn median(&self) -> String {
        let mut took = self.took.clone();
        took.sort_unstable();
        took.get(took.len() / 2).map_or("-".to_owned(), |it| format!("{:.1} ms", it.as_secs_f64() * 1e3))
    }
}

pub async fn show(kind: Kind, seconds: u32) -> Result<ExitCode> {
    let mut tenants = Tenants::start(kind).await?;
    tenants.crowd(seconds).await?;
    tenants.costs().await?;
    tenants.rest().await?;
    Ok(tenants.report.finish())
}

impl Tenants {
    async fn start(kind: Kind) -> Result<Self> {
        let mut report = Report::new();
        report.step("A model with limits for each tenant, and Envoy with the filter in front");
        let backend = Backend::start(kind).await?;
        let scenario = backend.shipped("rate-limit")?.concurrency(WORKERS);
        let configuration = scenario.plugin.configuration()?;
        let bucket = &configuration["models"][0]["rate_limits"][0]["token_bucket"];
        let tokens = |key: &str| bucket[key].as_u64().with_context(|| format!("per-tenant has no {key}"));
        let (rate, burst) = (tokens("tokens_per_fill")?, tokens("max_tokens")?);
        let envoy = scenario.start().await?;
        envoy.wait_until_healthy().await?;
        report.say(&format!("pools: {}; Envoy: envoy/rate-limit, {WORKERS} workers", backend.who()));
        report.say(&format!("limit per-tenant: {rate} requests a second, {burst} at once, by {TENANT}"));
        Ok(Self { report, backend, envoy, rate, burst })
    }

    async fn client(&self, tenant: &str) -> Result<Client> {
        Ok(Client::connect(self.envoy.addr).await?.with_metadata(TENANT, tenant))
    }

    async fn crowd(&mut self, seconds: u32) -> Result<()> {
        self.report.step(&format!(
            "modest calls {MODEST} times a second; after {seconds} s greedy calls as fast as it can"
        ));
        let columns = self.report.columns([
            ("second", 6),
            ("modest sent", 6),
            ("passed", 6),
            ("refused", 6),
            ("median", 7),
            ("greedy sent", 6),
            ("passed", 6),
            ("refused", 6),
        ]);
        let before = self.backend.executed().await?;
        let modest = self.client("modest").await?;
        let mut greedy = Vec::new();
        for _ in 0..GREEDY {
            greedy.push(self.client("greedy").await?);
        }
        let request = predict_request(MODEL, Asked::Latest, &[1.0]);
        let (mut alone, mut crowded, mut crowd) = (Calls::default(), Calls::default(), Calls::default());
        let mut tick = interval(Duration::from_secs(1) / MODEST);
        for second in 1..=seconds {
            let calls = a_second(&modest, &request, &mut tick).await?;
            print(&columns, second, &calls, &Calls::default());
            alone.add(calls);
        }
        let begun = Instant::now();
        for second in seconds + 1..=2 * seconds {
            let until = Instant::now() + Duration::from_secs(1);
            let mut all = JoinSet::new();
            for client in &greedy {
                all.spawn(as_fast_as_it_can(client.clone(), request.clone(), until));
            }
            let calls = a_second(&modest, &request, &mut tick).await?;
            let mut theirs = Calls::default();
            while let Some(calls) = all.join_next().await {
                theirs.add(calls??);
            }
            print(&columns, second, &calls, &theirs);
            crowded.add(calls);
            crowd.add(theirs);
        }
        let took = begun.elapsed();
        self.judge(&alone, &crowded, &crowd, took);
        let after = self.backend.executed().await?;
        let passed = alone.passed + crowded.passed + crowd.passed;
        self.report.check(
            "executed by the servers, and passed by the callers' count",
            &(after[0] + after[1] - before[0] - before[1]),
            &passed,
        );
        Ok(())
    }

    fn judge(&mut self, alone: &Calls, crowded: &Calls, crowd: &Calls, took: Duration) {
        self.report.check("modest: refused while alone", &alone.refused, &0);
        self.report.check("modest: refused beside greedy", &crowded.refused, &0);
        let other: Vec<_> = [alone, crowded, crowd].iter().flat_map(|it| it.other.clone()).collect();
        self.report.check("answers of any other kind", &other, &Vec::new());
        let fills = self.rate as f64 * took.as_secs_f64();
        let most = fills + self.burst as f64;
        let passed = crowd.passed as f64;
        self.report.check(
            &format!(
                "greedy: {} of {} passed, of {most:.1} that the limit admits",
                crowd.passed,
                crowd.sent()
            ),
            &(passed <= most && LEAST * fills <= passed),
            &true,
        );
        self.report.say(&format!(
            "modest: half of its calls took {} at most alone, {} beside greedy",
            alone.median(),
            crowded.median()
        ));
    }

    async fn costs(&mut self) -> Result<()> {
        self.report.step("A request costs as much as it asks: batches of the tenant bulk");
        let client = self.client("bulk").await?;
        let mut rows = Vec::new();
        for batch in [200, 256, 300] {
            let reply = client.predict(&predict_request(MODEL, Asked::Latest, &vec![1.0; batch])).await?;
            let header = |name| reply.header(name).unwrap_or("-").to_owned();
            rows.push([
                batch.to_string(),
                format!("{:?}", reply.code()),
                header("ratelimit"),
                header("ratelimit-policy"),
                header("grpc-retry-pushback-ms"),
                reply.text.clone(),
            ]);
        }
        let header =
            ["examples", "answer", "ratelimit", "ratelimit-policy", "grpc-retry-pushback-ms", "message"];
        self.report.table(header, &rows);
        let found: Vec<_> = rows.iter().map(|row| row[1].as_str()).collect();
        self.report.check("answers", &found, &vec!["Ok", "ResourceExhausted", "ResourceExhausted"]);
        self.report.check("what never passes is told never to come again", &rows[2][4].as_str(), &"-1");
        Ok(())
    }

    async fn rest(&mut self) -> Result<()> {
        self.report.step("The same limit over REST");
        let headers: [(&str, &[u8]); 1] = [(TENANT, b"by-rest")];
        let body = json!({ "instances": [1.0] }).to_string();
        let path = "/v1/models/resnet:predict";
        let (begun, mut passed) = (Instant::now(), 0.0);
        while begun.elapsed() < DEADLINE {
            let call =
                rest::request(self.envoy.addr, http::Method::POST, path, &headers, body.clone().into());
            let answer = call.await?;
            if answer.status == 200 {
                passed += 1.0;
                continue;
            }
            self.report.check("the status", &answer.status, &429);
            let most = self.burst as f64 + self.rate as f64 * begun.elapsed().as_secs_f64();
            self.report.check(
                &format!("{passed} passed before, of {most:.1} that the limit admits"),
                &(passed <= most),
                &true,
            );
            for name in ["retry-after", "ratelimit", "ratelimit-policy", "x-predictgate-reason"] {
                let value = answer.headers.get(name).and_then(|it| it.to_str().ok());
                self.report.say(&format!("{name}: {}", value.unwrap_or("-")));
            }
            let text: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            self.report.say(&text.to_string());
            return Ok(());
        }
        self.report.check("a burst is refused at its end", &false, &true);
        Ok(())
    }
}

fn print(columns: &Columns<8>, second: u32, modest: &Calls, greedy: &Calls) {
    let counts = |calls: &Calls| [calls.sent(), calls.passed, calls.refused].map(|it| it.to_string());
    let ([a, b, c], [d, e, f]) = (counts(modest), counts(greedy));
    columns.row(&[second.to_string(), a, b, c, modest.median(), d, e, f]);
}

/// The calls of a modest second.
async fn a_second(client: &Client, request: &PredictRequest, tick: &mut Interval) -> Result<Calls> {
    let mut calls = Calls::default();
    for _ in 0..MODEST {
        tick.tick().await;
        calls.call(client, request).await?;
    }
    Ok(calls)
}

async fn as_fast_as_it_can(client: Client, request: PredictRequest, until: Instant) -> Result<Calls> {
    let mut calls = Calls::default();
    while Instant::now() < until {
        calls.call(&client, &request).await?;
    }
    Ok(calls)
}
