//! What health costs: for each request, for each tick, and over many updates.

use std::time::Duration;

use predictgate_abi::Worker;
use serde_json::{Value, json};

use crate::health::{TICK, ask, configuration, ejecting, fail, halves, pass, workers};
use crate::setup::process;

fn guarded() -> Value {
    let mut route = halves();
    route["guard"] = json!({ "target": "canary", "baseline": "stable" });
    configuration(route, ejecting())
}

/// Many models of which each is watched.
fn models(count: usize) -> Value {
    let mut configuration = guarded();
    let model = configuration["models"][0].clone();
    let models = (0..count).map(|place| {
        let mut model = model.clone();
        if 0 < place {
            model["name"] = json!(format!("m-{place}"));
        }
        model
    });
    configuration["models"] = models.collect();
    configuration
}

/// The calls of shared data so far.
fn shared(worker: &Worker) -> u64 {
    worker.process().calls("proxy_get_shared_data") + worker.process().calls("proxy_set_shared_data")
}

#[test]
fn recording_costs_less_than_0_3_calls_of_shared_data_a_request() {
    const REQUESTS: u64 = 1_000;
    // A busy worker: 500 requests a second.
    let gap = Duration::from_millis(2);
    let [worker] = workers(&process(), &guarded());
    pass(std::slice::from_ref(&worker), TICK);
    let before = shared(&worker);
    for place in 0..REQUESTS {
        // One in fifty fails.
        ask(&worker, &[("x-user", &place.to_string())]).answer(if place % 50 == 7 { "503" } else { "200" });
        worker.process().advance(gap);
        if place % 50 == 49 {
            worker.tick();
        }
    }
    let a_request = (shared(&worker) - before) as f64 / REQUESTS as f64;
    println!("{a_request:.3} calls of shared data a request");
    assert!(a_request < 0.3, "{a_request}");
}

#[test]
fn an_idle_tick_costs_the_same_for_ten_and_for_ten_thousand_models() {
    let idle = |count: usize| {
        let [worker] = workers(&process(), &models(count));
        // All gauges are shown first.
        pass(std::slice::from_ref(&worker), TICK * 110);
        let (calls, fuel) = (worker.process().all_calls(), worker.fuel());
        for _ in 0..100 {
            worker.process().advance(TICK);
            worker.tick();
        }
        let mut made = worker.process().all_calls();
        made.iter_mut().for_each(|(import, count)| *count -= calls.get(import).copied().unwrap_or(0));
        (made, worker.fuel() - fuel)
    };
    let (few, many) = (idle(10), idle(10_000));
    println!("100 ticks: {} units of work for 10 models, {} for 10,000", few.1, many.1);
    assert_eq!(few.0, many.0);
    assert!(many.1 * 10 <= few.1 * 12, "{} units for 10 models, {} for 10,000", few.1, many.1);
}

#[test]
fn an_ejection_costs_nothing_for_each_of_many_models() {
    let [worker] = workers(&process(), &models(1_000));
    pass(std::slice::from_ref(&worker), TICK * 20);
    fail(&worker, "canary", 5);
    worker.tick();
    let before = shared(&worker);
    pass(std::slice::from_ref(&worker), TICK * 10);
    let a_tick = (shared(&worker) - before) / 10;
    assert!(a_tick < 10, "{a_tick} calls of shared data a tick, with one of 1,000 models out");
}

#[test]
fn ten_thousand_updates_leak_no_key_and_no_memory() {
    const UPDATES: usize = 10_000;
    let process = process();
    let [mut worker] = workers(&process, &guarded());
    let texts: Vec<_> = (0..7)
        .map(|epoch| {
            let mut configuration = guarded();
            configuration["models"][0]["routes"][0]["guard"]["epoch"] = json!(epoch);
            configuration.to_string()
        })
        .collect();
    let mut after_some = (0, 0);
    for update in 0..UPDATES {
        worker.reconfigure(&texts[update % texts.len()]).unwrap();
        // There is something to keep, and to throw away.
        if update % 10 == 0 {
            fail(&worker, "canary", 1);
            for _ in 0..2 {
                ask(&worker, &[("x-use-target", "canary")]).answer("200");
            }
        }
        process.advance(TICK);
        worker.tick();
        worker.drain();
        if update == UPDATES / 10 {
            after_some = (process.shared_keys().len(), worker.memory());
        }
    }
    let after = (process.shared_keys().len(), worker.memory());
    println!("{after_some:?} keys and bytes after {} updates, {after:?} after {UPDATES}", UPDATES / 10);
    assert_eq!(after, after_some);
    // The list of changes, and the entry of the one model.
    assert_eq!(after.0, 2);
}
