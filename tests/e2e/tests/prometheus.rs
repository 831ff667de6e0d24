//! A real Prometheus with what `envoy/prometheus` has, of real Envoys in every trouble that a metric tells of.

#[path = "prometheus/server.rs"]
mod server;
#[path = "prometheus/trouble.rs"]
mod trouble;

use std::collections::BTreeSet;
use std::fs;

use anyhow::Context as _;
use model_server::client::rest;
use predictgate_e2e::tools::root;
use predictgate_e2e::wait::until;
use serde_json::Value;

use server::{Alert, Prometheus, promtool};
use trouble::{Incapable, Rollout};

/// The names in the README's table of metrics, each with the labels that it always has.
fn documented() -> Vec<(String, BTreeSet<String>)> {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, rest) = readme.split_once("### Metrics").unwrap();
    let rows =
        rest.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let in_backticks = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    rows.filter_map(|row| {
        let mut cells = row.split('|').skip(1);
        let name = in_backticks(cells.next()?).into_iter().next()?;
        // What follows is there under a condition only.
        let always = cells.next()?.split(", with").next()?;
        Some((name, in_backticks(always).into_iter().collect()))
    })
    .collect()
}

fn shipped_alerts() -> Vec<String> {
    let rules = fs::read_to_string(root().join("envoy/prometheus/rules.yml")).unwrap();
    rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ").map(str::to_owned)).collect()
}

/// The queries of the dashboard, each with its panel.
fn asked_by_the_dashboard() -> Vec<(String, String)> {
    let dashboard = fs::read_to_string(root().join("envoy/prometheus/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let of_panel = |panel: &Value| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().unwrap().clone();
        targets.into_iter().map(move |target| {
            (title.clone(), target["expr"].as_str().unwrap().replace("$__rate_interval", "1m"))
        })
    };
    panels.flat_map(of_panel).collect()
}

#[test]
fn promtool_takes_what_is_shipped_and_the_rules_say_what_they_should() {
    let shipped = root().join("envoy/prometheus");
    promtool(&["check", "config"], &shipped.join("prometheus.yml")).unwrap();
    promtool(&["check", "rules"], &shipped.join("rules.yml")).unwrap();
    promtool(&["test", "rules"], &root().join("tests/e2e/tests/prometheus/rules_test.yml")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_is_scraped_and_every_alert_is_raised_by_its_trouble_and_not_before() {
    let documented = documented();
    assert!(10 <= documented.len(), "{documented:?}");
    let rollout = Rollout::start().await.unwrap();
    let incapable = Incapable::start().await.unwrap();
    let prometheus =
        Prometheus::start(&[rollout.metrics().await.unwrap(), incapable.metrics().await.unwrap()])
            .await
            .unwrap();

    // Prometheus 3 scrapes nothing that does not say what it is.
    let scrape = rest::get(rollout.metrics().await.unwrap(), "/stats/prometheus").await.unwrap();
    let kind = scrape.headers["content-type"].to_str().unwrap();
    assert!(kind.starts_with("text/plain"), "{kind}");

    until("both Envoys to be scraped", || async {
        Ok((prometheus.series("up == 1").await?.len() == 2).then_some(()))
    })
    .await
    .unwrap();
    until("healthy calls to show", || async {
        rollout.healthy_calls().await?;
        let shares = prometheus.series("predictgate:requests:rate5m > 1").await?;
        Ok((2 <= shares.len()).then_some(()))
    })
    .await
    .unwrap();
    let alerts = prometheus.alerts().await.unwrap();
    let names: Vec<_> = alerts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, shipped_alerts());
    assert!(alerts.iter().all(|(_, alert)| *alert == Alert::Inactive), "{alerts:?}");

    rollout.fall_ill();
    until("every alert to be raised", || async {
        tokio::try_join!(rollout.troubled_calls(), incapable.troubled_calls())?;
        let alerts = prometheus.alerts().await?;
        Ok(alerts.iter().all(|(_, alert)| Alert::Pending <= *alert).then_some(()))
    })
    .await
    .unwrap();

    for (name, labels) in documented {
        let query = format!(r#"{{__name__=~"{name}(_bucket|_sum|_count)?"}}"#);
        let series = prometheus.shown(&query).await.unwrap();
        let names: BTreeSet<_> = series.iter().map(|it| it["__name__"].as_str().unwrap()).collect();
        let parts = ["_bucket", "_sum", "_count"].map(|part| format!("{name}{part}"));
        let is_histogram = name.ends_with("_ms");
        let expected: BTreeSet<_> =
            if is_histogram { parts.iter().map(String::as_str).collect() } else { [name.as_str()].into() };
        assert_eq!(names, expected);
        for series in &series {
            let found: BTreeSet<_> = series.as_object().unwrap().keys().cloned().collect();
            let missing: Vec<_> = labels.difference(&found).collect();
            assert!(missing.is_empty(), "{series} has no {missing:?}");
        }
    }
    for name in prometheus.recorded().await.unwrap() {
        prometheus.shown(&name).await.unwrap();
    }
    for (panel, query) in asked_by_the_dashboard() {
        prometheus.shown(&query).await.with_context(|| panel).unwrap();
    }
}
