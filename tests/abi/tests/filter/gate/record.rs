//! The accepted figures, and how far others may be from them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Above it a module is slow to load and large in memory, in every worker.
const MOST_BYTES: u64 = 614_400;
/// What a change of figures may be that nobody has to look at, in percent.
const DRIFT: u64 = 5;
/// What another compiler than the recorded ones may make worse, in percent.
const COMPILER_DRIFT: u64 = 25;

/// How often each import is called, by request.
pub type Calls = BTreeMap<String, BTreeMap<String, u64>>;

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Record {
    pub calls: Calls,
    pub compilers: BTreeMap<String, Cost>,
}

/// What depends on the compiler.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Cost {
    pub module_bytes: u64,
    /// V8 compiles a function whole, with memory that grows faster than the function, and Envoy's allocator keeps it.
    pub largest_function_bytes: u64,
    /// By request.
    pub fuel: BTreeMap<String, u64>,
}

const HEAD: &str = "\
# What the built module costs, as accepted: calls to the host and fuel (instructions) of a hundred requests and a tick.
# Written by `cargo xtask bench --accept`, compared by the tier `abi`.

";

impl Record {
    pub fn read(path: &Path) -> Option<Self> {
        toml::from_str(&fs::read_to_string(path).ok()?).ok()
    }

    pub fn write(&self, path: &Path) {
        fs::write(path, format!("{HEAD}{}", toml::to_string(self).unwrap())).unwrap();
    }

    pub fn accept(&mut self, compiler: &str, calls: Calls, cost: Cost) {
        // Other compilers' figures are of another module.
        if self.calls != calls {
            self.compilers.clear();
        }
        self.calls = calls;
        self.compilers.insert(compiler.to_owned(), cost);
    }

    /// What is not as recorded, in sentences.
    pub fn differences(&self, compiler: &str, calls: &Calls, cost: &Cost) -> Vec<String> {
        let mut found = Vec::new();
        for request in names(&self.calls, calls) {
            let (accepted, now) = (self.calls.get(request), calls.get(request));
            for import in names(accepted.unwrap_or(&BTreeMap::new()), now.unwrap_or(&BTreeMap::new())) {
                let count = |of: Option<&BTreeMap<String, u64>>| of.and_then(|it| it.get(import)).copied();
                let (accepted, now) = (count(accepted).unwrap_or(0), count(now).unwrap_or(0));
                if accepted != now {
                    found.push(format!("{request}: {now} calls of {import}, expected {accepted}"));
                }
            }
        }
        let known = self.compilers.get(compiler);
        let Some(accepted) = known.or_else(|| self.compilers.values().next_back()) else {
            found.push("no compiler is recorded".to_owned());
            return found;
        };
        let mut compare = |what: &str, now: u64, accepted: u64| {
            let differs = match known {
                Some(_) => accepted * DRIFT < now.abs_diff(accepted) * 100,
                None => accepted * COMPILER_DRIFT < now.saturating_sub(accepted) * 100,
            };
            if differs {
                found.push(format!("{what}: {now}, expected {accepted}"));
            }
        };
        for request in names(&accepted.fuel, &cost.fuel) {
            let of = |fuel: &BTreeMap<String, u64>| fuel.get(request).copied().unwrap_or(0);
            compare(&format!("{request}: fuel"), of(&cost.fuel), of(&accepted.fuel));
        }
        compare("bytes of the module", cost.module_bytes, accepted.module_bytes);
        let accepted_function = accepted.largest_function_bytes;
        compare("bytes of the largest function", cost.largest_function_bytes, accepted_function);
        // What was accepted above the bound may only become less.
        let most = accepted.module_bytes.max(MOST_BYTES);
        if known.is_some() && most < cost.module_bytes {
            found.push(format!("bytes of the module: {}, expected at most {most}", cost.module_bytes));
        }
        found
    }
}

fn names<'a, T>(one: &'a BTreeMap<String, T>, other: &'a BTreeMap<String, T>) -> BTreeSet<&'a String> {
    one.keys().chain(other.keys()).collect()
}

fn example(calls: u64, fuel: u64, module_bytes: u64) -> (Calls, Cost) {
    let of = |count| BTreeMap::from([("get".to_owned(), count)]);
    let cost = Cost { module_bytes, largest_function_bytes: 1_000, fuel: of(fuel) };
    (BTreeMap::from([("get".to_owned(), of(calls))]), cost)
}

/// Holds the figures against a record of 100 calls, 1,000 fuel and as many bytes, by the compiler `a`.
#[track_caller]
fn check(recorded_bytes: u64, compiler: &str, (calls, cost): (Calls, Cost), expected: &[&str]) {
    let mut record = Record::default();
    let (accepted, of_compiler) = example(100, 1_000, recorded_bytes);
    record.accept("a", accepted, of_compiler);
    assert_eq!(record.differences(compiler, &calls, &cost), expected);
}

#[test]
fn one_call_more_or_less_is_a_difference_whoever_compiled() {
    check(600_000, "a", example(100, 1_000, 600_000), &[]);
    check(600_000, "a", example(101, 1_000, 600_000), &["get: 101 calls of get, expected 100"]);
    check(600_000, "b", example(99, 1_000, 600_000), &["get: 99 calls of get, expected 100"]);
    check(600_000, "a", (Calls::new(), example(0, 1_000, 600_000).1), &["get: 0 calls of get, expected 100"]);
}

#[test]
fn work_may_drift_by_a_twentieth_and_with_another_compiler_grow_by_a_quarter() {
    check(600_000, "a", example(100, 1_050, 600_000), &[]);
    check(600_000, "a", example(100, 1_051, 600_000), &["get: fuel: 1051, expected 1000"]);
    check(600_000, "a", example(100, 949, 600_000), &["get: fuel: 949, expected 1000"]);
    check(600_000, "b", example(100, 1_250, 600_000), &[]);
    check(600_000, "b", example(100, 1, 600_000), &[]);
    check(600_000, "b", example(100, 1_251, 600_000), &["get: fuel: 1251, expected 1000"]);
}

#[test]
fn a_function_that_has_grown_is_looked_at() {
    let (calls, cost) = example(100, 1_000, 600_000);
    let grown = Cost { largest_function_bytes: 1_051, ..cost };
    check(600_000, "a", (calls, grown), &["bytes of the largest function: 1051, expected 1000"]);
}

#[test]
fn a_module_is_never_above_the_bound_unless_it_was_and_shrinks() {
    check(600_000, "a", example(100, 1_000, 614_400), &[]);
    check(
        600_000,
        "a",
        example(100, 1_000, 614_401),
        &["bytes of the module: 614401, expected at most 614400"],
    );
    check(700_000, "a", example(100, 1_000, 699_999), &[]);
    check(
        700_000,
        "a",
        example(100, 1_000, 700_001),
        &["bytes of the module: 700001, expected at most 700000"],
    );
}
