//! A run over many messages, on as many cores as asked, each with an oracle of its own.

use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use predictgate::identity::ModelSpec;

use crate::dice::Dice;
use crate::judge::{Difference, Trait, compare};
use crate::message::{Message, Source};
use crate::oracle::Oracle;
use crate::rewrite::rewritten;

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    /// The number of the first message.
    pub first: u64,
    pub messages: u64,
    pub jobs: usize,
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Tally {
    pub messages: u64,
    pub accepted: u64,
    pub named: u64,
    pub contradicted: u64,
    pub rewritten: u64,
    pub findings: Vec<Finding>,
}

#[derive(Debug)]
pub struct Finding {
    pub number: u64,
    pub message: Message,
    pub oracle: Option<ModelSpec>,
    pub difference: Difference,
}

const BATCH: u64 = 4096;
/// So many say more than all.
pub const MOST_FINDINGS: usize = 5;
const STILL_AT_WORK: Duration = Duration::from_secs(15);

/// Compares every message of the plan, or stops at the fifth difference.
///
/// # Errors
///
/// Fails when the oracle does.
pub fn run(plan: Plan, program: &Path) -> Result<Tally> {
    let source = Source::new();
    let tally = Mutex::new(Tally::default());
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let work = || -> Result<()> {
        let mut oracle = Oracle::start(program)?;
        while !stop.load(Ordering::Relaxed) {
            let from = next.fetch_add(BATCH, Ordering::Relaxed);
            if from >= plan.messages {
                break;
            }
            let numbers = plan.first + from..plan.first + plan.messages.min(from + BATCH);
            let found = batch(plan.seed, numbers, &source, &mut oracle)?;
            let mut tally = tally.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            tally.add(found);
            if tally.findings.len() >= MOST_FINDINGS {
                stop.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        let mut said = Instant::now();
        while workers.iter().any(|worker| !worker.is_finished()) {
            thread::park_timeout(Duration::from_millis(50));
            if said.elapsed() > STILL_AT_WORK {
                said = Instant::now();
                eprintln!(
                    "judging: {} of {} messages",
                    next.load(Ordering::Relaxed).min(plan.messages),
                    plan.messages
                );
            }
        }
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    let mut tally = tally.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    tally.findings.sort_by_key(|finding| finding.number);
    Ok(tally)
}

fn batch(seed: u64, numbers: Range<u64>, source: &Source, ask: &mut Oracle) -> Result<Tally> {
    let mut dice: Vec<_> = numbers.clone().map(|number| Dice::of_message(seed, number)).collect();
    let messages: Vec<_> = dice.iter_mut().map(|dice| source.draw(dice)).collect();
    let read = ask.read(&messages)?;
    let mut tally = Tally { messages: messages.len() as u64, ..Tally::default() };
    let mut rewrites = Vec::new();
    for (((number, message), oracle), mut dice) in numbers.zip(messages).zip(read).zip(dice) {
        match compare(&message, oracle.as_ref(), &mut dice) {
            Ok(Trait { accepted, named, contradicted }) => {
                tally.accepted += u64::from(accepted);
                tally.named += u64::from(named);
                tally.contradicted += u64::from(contradicted);
                let rewritten = if accepted { rewritten(&message, &mut dice) } else { None };
                rewrites.extend(rewritten.map(|rewritten| (number, message, oracle, rewritten)));
            }
            Err(difference) => tally.findings.push(Finding { number, message, oracle, difference }),
        }
    }
    tally.rewritten = rewrites.len() as u64;
    let sent: Vec<_> = rewrites.iter().map(|(.., rewritten)| rewritten.message.clone()).collect();
    for ((number, message, oracle, rewritten), read) in rewrites.into_iter().zip(ask.read(&sent)?) {
        if let Err(difference) = rewritten.compare(read.as_ref()) {
            tally.findings.push(Finding { number, message, oracle, difference });
        }
    }
    Ok(tally)
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.accepted += other.accepted;
        self.named += other.named;
        self.contradicted += other.contradicted;
        self.rewritten += other.rewritten;
        self.findings.extend(other.findings);
    }
}
