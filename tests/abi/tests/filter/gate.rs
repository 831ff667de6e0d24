//! What the built module costs, in figures that do not jitter, held against those that were accepted.
//!
//! Calls to the host must be as recorded, since they are most of what a request costs. Fuel, which counts the
//! instructions of the module, and the module's size depend on the compiler and are recorded for each.
//! `cargo xtask bench --accept` records the present figures.

mod record;
mod requests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{env, fs};

use record::{Cost, Record};
use wasmparser::{KnownCustom, Parser, Payload};

/// Set to record what is measured instead of comparing it.
const ACCEPT: &str = "PREDICTGATE_ACCEPT";

#[test]
fn the_module_costs_what_was_accepted() {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/filter/gate.toml"));
    let module = fs::read(env::var_os("PREDICTGATE_WASM").unwrap()).unwrap();
    let compiler = compiler(&module).expect("a Rust module names its compiler in the section `producers`");
    let measured = requests::measure();
    let calls: BTreeMap<_, _> = measured.iter().map(|it| (it.name.to_owned(), it.calls.clone())).collect();
    let fuel = measured.iter().map(|it| (it.name.to_owned(), it.fuel)).collect();
    let largest_function_bytes = largest_function(&module);
    let cost = Cost { module_bytes: module.len() as u64, largest_function_bytes, fuel };
    println!("{compiler}: {} bytes, of which one function {largest_function_bytes}", cost.module_bytes);
    for it in &measured {
        println!(
            "{:20} {:8} fuel, {:5} host calls in {}",
            it.name,
            it.fuel,
            it.all_calls(),
            requests::ROUNDS
        );
    }
    if env::var_os(ACCEPT).is_some() {
        let mut record = Record::read(&path).unwrap_or_default();
        record.accept(&compiler, calls, cost);
        record.write(&path);
        return;
    }
    let record = Record::read(&path).expect("gate.toml: run `cargo xtask bench --accept`");
    let differences = record.differences(&compiler, &calls, &cost);
    assert!(
        differences.is_empty(),
        "{}\nnext: if that is on purpose, `cargo xtask bench --accept`",
        differences.join("\n")
    );
}

/// The compiler that built the module, such as `rustc 1.95.0 (59807616e 2026-04-14)`.
fn compiler(module: &[u8]) -> Option<String> {
    for payload in Parser::new(0).parse_all(module) {
        let Ok(Payload::CustomSection(section)) = payload else { continue };
        let KnownCustom::Producers(fields) = section.as_known() else { continue };
        let processed_by = fields.into_iter().flatten().find(|field| field.name == "processed-by")?;
        let rustc = processed_by.values.into_iter().flatten().find(|value| value.name == "rustc")?;
        return Some(format!("rustc {}", rustc.version));
    }
    None
}

fn largest_function(module: &[u8]) -> u64 {
    let bodies = Parser::new(0).parse_all(module).filter_map(|payload| match payload {
        Ok(Payload::CodeSectionEntry(body)) => Some(body.range().len() as u64),
        _ => None,
    });
    bodies.max().expect("a module has functions")
}
