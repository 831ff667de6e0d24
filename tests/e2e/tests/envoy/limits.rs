//! Rate limits in a real Envoy, saturated: what is admitted is what they promise, over every interval.

use std::collections::BTreeMap;
use std::env;
use std::time::{Duration, Instant};

use anyhow::Result;
use model_server::client::{Asked, predict_request};
use model_server::{Rpc, ServerConfig};
use predictgate_e2e::decisions::{self, Decision, Findings, Limit};
use predictgate_e2e::load::{Connection, Request};
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::wait::{is_idle, until};
use predictgate_e2e::{Envoy, Pools, Scenario, tools};
use prost::Message as _;
use serde_json::{Value, json};

use super::stage::X;

const WORKERS: u32 = 4;
const CONNECTIONS: usize = 10;
/// Calls of a connection that are under way at once.
const AT_ONCE: usize = 4;

const MODELS: [&str; 3] = ["few", "some", "many"];
/// Tokens a second of each model's limit, with a burst of one second.
type Rates = [u64; 3];
/// What is promised.
const PROMISED: Rates = [5, 100, 2000];
/// The least of many; less would differ little from some.
const LEAST: u64 = 125;

fn limit(rate: u64) -> Limit {
    Limit { rate, burst: rate }
}

/// How long each Envoy is saturated.
fn duration() -> Duration {
    let seconds = env::var("PREDICTGATE_SATURATION_SECONDS").map_or(10, |it| it.parse().unwrap());
    Duration::from_secs(seconds)
}

/// Who limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limiter {
    Predictgate,
    /// Envoy's own filter, with a bucket that all workers share.
    Envoy,
}

/// Servers that remember nothing need not hash.
async fn pools() -> Pools {
    let start = |version: i64| {
        let versions = [version];
        let models = [&[MODEL], &MODELS[..]].concat();
        let models: Vec<_> = models.into_iter().map(|name| (name, &versions[..], &[][..])).collect();
        let config = ServerConfig::half_plus(&models).remembered(0);
        model_server::start(config)
    };
    Pools { v1: start(1).await.unwrap(), v2: start(2).await.unwrap() }
}

fn bucket(tokens: u64) -> Value {
    json!({ "max_tokens": tokens, "tokens_per_fill": tokens, "fill_interval": "1s" })
}

fn scenario(pools: &Pools, limiter: Limiter, rates: Rates) -> Result<Scenario> {
    let scenario = pools.quickstart()?.concurrency(WORKERS).connection_manager(|manager| {
        manager["access_log"][0]["typed_config"]["log_format"] = json!({
            "text_format_source": {
                "inline_string": "%START_TIME(%s%9f)% %REQ(X-MODEL-NAME)% %RESPONSE_CODE_DETAILS%\n",
            }
        });
    });
    if limiter == Limiter::Predictgate {
        let mut scenario = scenario.reconfigured(|configuration| {
            let models = MODELS.iter().zip(rates).map(|(name, rate)| {
                json!({
                    "name": name,
                    "targets": { "all": { "cluster": "tfs-v1" } },
                    "routes": [{ "split": [{ "target": "all" }] }],
                    "rate_limits": [{ "name": "all", "token_bucket": bucket(rate) }],
                })
            });
            configuration["models"] = models.collect();
        })?;
        scenario.plugin.use_module(&tools::decision_log_wasm()?);
        return Ok(scenario);
    }
    let local_rate_limit = |tokens: Option<u64>| {
        let mut settings = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": "limits",
        });
        if let Some(tokens) = tokens {
            let everyone = json!({ "default_value": { "numerator": 100, "denominator": "HUNDRED" } });
            settings["token_bucket"] = bucket(tokens);
            settings["filter_enabled"] = everyone.clone();
            settings["filter_enforced"] = everyone;
            settings["rate_limited_as_resource_exhausted"] = json!(true);
        }
        settings
    };
    let name = "envoy.filters.http.local_ratelimit";
    Ok(scenario.connection_manager(|manager| {
        manager["http_filters"][0] = json!({ "name": name, "typed_config": local_rate_limit(None) });
        let routes = MODELS.iter().zip(rates).map(|(model, rate)| {
            json!({
                "match": { "prefix": "/", "headers": [{ "name": "x-model-name", "string_match": { "exact": model } }] },
                "route": { "cluster": "tfs-v1", "timeout": "5s" },
                "typed_per_filter_config": { name: local_rate_limit(Some(rate)) },
            })
        });
        manager["route_config"]["virtual_hosts"][0]["routes"] = routes.collect();
    }))
}

/// What the callers saw of each model: calls, and those of them that were answered with a message.
type Seen = BTreeMap<usize, (usize, usize)>;

/// So many connections, of which every worker has some. The kernel deals them out by chance.
pub async fn connect(envoy: &Envoy, wanted: usize) -> Result<Vec<Connection>> {
    loop {
        let before = envoy.connections_by_worker().await?;
        let connections = (0..wanted).map(|_| Connection::open(envoy.addr)).collect::<Result<_>>()?;
        let expected = before.iter().sum::<u64>() + wanted as u64;
        let taken = until("the connections to be taken", || async {
            let taken = envoy.connections_by_worker().await?;
            Ok((taken.iter().sum::<u64>() == expected).then_some(taken))
        })
        .await?;
        let new: Vec<_> = taken.iter().zip(&before).map(|(taken, before)| taken - before).collect();
        if !new.contains(&0) {
            eprintln!("connections of the workers: {new:?}");
            return Ok(connections);
        }
    }
}

/// Calls the models over one connection for so long.
fn call(mut connection: Connection, first: usize, time: Duration) -> Result<Seen> {
    let requests = MODELS.map(|model| {
        let message = predict_request(model, Asked::Latest, &X).encode_to_vec();
        Request::new(Rpc::Predict.path(), &[("x-model-name", model)], &message)
    });
    // Of twenty calls, one is for few, three are for some, and the rest for many.
    let deal = |place: usize| match place % 20 {
        0 => 0,
        5 | 10 | 15 => 1,
        _ => 2,
    };
    let (mut seen, mut open, mut calls) = (Seen::new(), 0, Vec::new());
    let begin = Instant::now();
    loop {
        let goes_on = begin.elapsed() < time;
        while goes_on && open < AT_ONCE {
            let model = deal(first + calls.len());
            calls.push(model);
            connection.call(&requests[model]);
            open += 1;
        }
        if open == 0 {
            return Ok(seen);
        }
        for answer in connection.wait()? {
            open -= 1;
            let (all, answered) = seen.entry(calls[answer.call]).or_default();
            *all += 1;
            *answered += usize::from(answer.has_message);
        }
    }
}

fn saturate(connections: Vec<Connection>, time: Duration) -> Seen {
    let mut seen = Seen::new();
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..)
            .step_by(7)
            .zip(connections)
            .map(|(first, connection)| scope.spawn(move || call(connection, first, time)))
            .collect();
        for caller in callers {
            for (model, (all, answered)) in caller.join().unwrap().unwrap() {
                let sum = seen.entry(model).or_default();
                *sum = (sum.0 + all, sum.1 + answered);
            }
        }
    });
    seen
}

/// The decisions as the access log tells them: the moment at which Envoy had a request's first bytes.
fn of_access_log(log: &str) -> BTreeMap<usize, Vec<Decision>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for line in log.lines() {
        let mut words = line.split(' ');
        let at = words.next().unwrap().parse().unwrap();
        let Some(model) = words.next().and_then(|name| MODELS.iter().position(|it| *it == name)) else {
            continue;
        };
        let admitted = words.next() == Some("via_upstream");
        all.entry(model).or_default().push(Decision { at, admitted });
    }
    all
}

/// Asks until there are the decisions of all calls.
async fn all_of(
    seen: &Seen,
    what: &str,
    read: impl Fn() -> Result<BTreeMap<usize, Vec<Decision>>>,
) -> BTreeMap<usize, Vec<Decision>> {
    until(format!("{what} of all calls"), || async {
        let all = read()?;
        let is_whole = |(model, (calls, _)): (&usize, &(usize, usize))| {
            all.get(model).is_some_and(|decisions| decisions.len() == *calls)
        };
        Ok(seen.iter().all(is_whole).then_some(all))
    })
    .await
    .unwrap()
}

struct Run {
    seen: Seen,
    executed: [u64; 3],
    /// By the filter's own words, where it has any.
    exact: Option<[Findings; 3]>,
    /// By the access log.
    coarse: [Findings; 3],
}

async fn run(limiter: Limiter, rates: Rates, time: Duration) -> Run {
    let pools = pools().await;
    let envoy = scenario(&pools, limiter, rates).unwrap().start().await.unwrap();
    envoy.wait_until_healthy().await.unwrap();
    let connections = connect(&envoy, CONNECTIONS).await.unwrap();
    let seen = tokio::task::spawn_blocking(move || saturate(connections, time)).await.unwrap();
    let judge = |all: &BTreeMap<usize, Vec<Decision>>| {
        [0, 1, 2].map(|model| limit(rates[model]).judge(all[&model].clone()))
    };
    let access = all_of(&seen, "the access log", || Ok(of_access_log(&envoy.access_lines()))).await;
    let mut exact = None;
    if limiter == Limiter::Predictgate {
        exact = Some(judge(&all_of(&seen, "the decisions", || decisions::of_log(&envoy.log())).await));
        conflicts(&envoy).await;
    }
    let executed = MODELS.map(|model| pools.v1.counts().executed(model, 1));
    Run { seen, executed, exact, coarse: judge(&access) }
}

/// No limit was decided by `on_error`.
async fn conflicts(envoy: &Envoy) {
    let samples = envoy.admin.prometheus().await.unwrap();
    let errors: Vec<_> = samples.iter().filter(|it| it.name == "predictgate_limit_errors").collect();
    assert!(errors.is_empty(), "{errors:?}");
}

fn print(limiter: &str, rates: Rates, time: Duration, findings: &[Findings; 3]) {
    for ((model, rate), found) in MODELS.iter().zip(rates).zip(findings) {
        let a_second = |count: usize| count as f64 / time.as_secs_f64();
        eprintln!(
            "{limiter:<34} {model:>9} {rate:>6} {:>9.0} {:>9.1} {:>9} {:>9.3} {:>9.1} {:>8.2} %",
            a_second(found.offered),
            a_second(found.admitted),
            found.violations,
            found.above,
            found.saturated.as_secs_f64(),
            100.0 * found.share,
        );
    }
}

fn print_header() {
    eprintln!(
        "{:<34} {:>9} {:>6} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10}",
        "limits",
        "model",
        "rate",
        "offered/s",
        "passed/s",
        "above law",
        "by tokens",
        "satur. s",
        "of the rate"
    );
}

impl Run {
    /// Whoever counted what was admitted has counted the same, and no interval had too much.
    fn check(&self) {
        for (place, model) in MODELS.iter().enumerate() {
            let (found, executed) = (&self.coarse[place], self.executed[place]);
            assert_eq!(found.admitted, self.seen[&place].1, "{model}: by its callers");
            assert_eq!(found.admitted as u64, executed, "{model}: by its server");
            if let Some(exact) = &self.exact {
                assert_eq!(exact[place].violations, 0, "{model}: {:?}", exact[place]);
                assert_eq!(exact[place].admitted as u64, executed, "{model}: by its server");
            }
        }
    }
}

/// The limits under load, with the rates at which twice as much was offered at least half of the time; less would show
/// little of what a limit admits.
async fn saturated(time: Duration) -> (Run, [Findings; 3], Rates) {
    let mut rates = PROMISED;
    loop {
        let run = run(Limiter::Predictgate, rates, time).await;
        run.check();
        let exact = run.exact.unwrap();
        if exact.iter().all(|found| time / 2 <= found.saturated) {
            return (run, exact, rates);
        }
        print("not saturated, by its decisions", rates, time, &exact);
        // A machine that has other work does not offer so much.
        assert!(!is_idle() && LEAST < rates[2], "this machine cannot saturate limits of {rates:?}");
        rates[2] /= 2;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold_over_every_interval_and_admit_what_they_promise() {
    let time = duration();
    print_header();
    let (ours, exact, rates) = saturated(time).await;
    // The same load on Envoy's own limits, whose bucket all workers share, for comparison.
    let time_of_others = time / 5;
    let envoys = run(Limiter::Envoy, rates, time_of_others).await;
    envoys.check();
    print("predictgate, by its decisions", rates, time, &exact);
    print("predictgate, by the access log", rates, time, &ours.coarse);
    print("local_ratelimit, by the access log", rates, time_of_others, &envoys.coarse);
    for (model, found) in MODELS.iter().zip(&exact) {
        assert!(0.97 <= found.share, "{model}: {found:?}");
    }
}
