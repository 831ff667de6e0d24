//! Tells whether the filter, and Envoy with it, would take the configurations in files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::config_files::{self, Found, Reference};
use crate::project::Project;
use crate::run::Step;
use crate::tools;

pub struct Options {
    pub files: Vec<PathBuf>,
    /// Also let Envoy itself read what is a whole configuration of it.
    pub envoy: bool,
    /// Fail where Envoy or the module is not to be had.
    pub must_have_envoy: bool,
}

/// Checks every file and prints what was checked and every error.
///
/// # Errors
///
/// Fails when a configuration would be refused, or none is found in a file.
pub fn check(project: &Project, options: &Options) -> Result<()> {
    let mut report = Report::default();
    for file in &options.files {
        check_file(file, &mut report);
    }
    if options.envoy {
        validate(project, options, &mut report)?;
    }
    match report.errors {
        0 => Ok(()),
        1 => bail!("1 error"),
        errors => bail!("{errors} errors"),
    }
}

#[derive(Default)]
struct Report {
    errors: usize,
    /// A file may be named and also be referred to by another.
    seen: BTreeSet<PathBuf>,
    /// What Envoy itself can read.
    bootstraps: Vec<(PathBuf, Value)>,
}

impl Report {
    fn error(&mut self, file: &Path, place: &str, problem: &str) {
        self.errors += 1;
        println!("{}", line(file, place, problem));
    }
}

/// `FILE: PLACE: TEXT`, without a place that there is not.
fn line(file: &Path, place: &str, text: &str) -> String {
    let place = place.trim_end_matches([' ', ':']);
    let separator = if place.is_empty() { "" } else { ": " };
    format!("{}: {place}{separator}{text}", file.display())
}

fn check_file(file: &Path, report: &mut Report) {
    if !report.seen.insert(fs::canonicalize(file).unwrap_or_else(|_| file.to_owned())) {
        return;
    }
    let (text, mut documents) = match read(file) {
        Ok(read) => read,
        Err(problem) => return report.error(file, "", &format!("{problem:#}")),
    };
    let contents = config_files::find(&text, &documents);
    if contents.found.is_empty() && contents.references.is_empty() {
        let problem = format!("no plugin configuration found: looked for {}", config_files::LOOKED_FOR);
        return report.error(file, "", &problem);
    }
    // Other Wasm filters may stand beside; when none names Predictgate, the module may have been renamed.
    let some_named = contents.found.iter().any(|found| found.named);
    for found in &contents.found {
        if some_named && !found.named {
            println!(
                "{}",
                line(file, &found.place, "not checked: it does not name Predictgate, as another does")
            );
        } else {
            check_configuration(file, found, report);
        }
    }
    let mut filters = BTreeMap::new();
    for reference in &contents.references {
        if let Some(filter) = check_reference(file, reference, report) {
            filters.insert((&reference.name, &reference.path), filter);
        }
    }
    match documents.as_mut_slice() {
        [bootstrap] if config_files::is_bootstrap(bootstrap) => {
            let mut resolve =
                |reference: &Reference| filters.get(&(&reference.name, &reference.path)).cloned().ok_or(());
            // What could not be resolved has been reported.
            if config_files::inline(bootstrap, &mut resolve).is_ok() {
                report.bootstraps.push((file.to_owned(), bootstrap.take()));
            }
        }
        [ecds] if ecds.get("resources").is_some() => match config_files::ecds_resource(ecds, None) {
            Ok(resource) => {
                report.bootstraps.push((file.to_owned(), config_files::bootstrap_around(resource)));
            }
            Err(problem) => report.error(file, "", &problem),
        },
        _ => {}
    }
}

fn read(file: &Path) -> Result<(String, Vec<Value>)> {
    let text = fs::read_to_string(file).context("cannot read it")?;
    let documents = config_files::documents(&text)?;
    Ok((text, documents))
}

fn check_configuration(file: &Path, found: &Found, report: &mut Report) {
    let text = match &found.text {
        Ok(text) => text,
        Err(problem) => return report.error(file, &found.place, problem),
    };
    match predictgate::config::parse(text) {
        Ok(policy) => {
            let routes: usize = policy.models.iter().map(|model| model.routes.len()).sum();
            let sizes =
                format!("ok ({}, {})", counted(policy.models.len(), "model"), counted(routes, "route"));
            println!("{}", line(file, &found.place, &sizes));
        }
        Err(errors) => {
            for error in errors {
                let separator = if error.path.is_empty() { "" } else { ": " };
                report.error(file, &found.place, &format!("{}{separator}{}", error.path, error.problem));
            }
        }
    }
}

/// Checks the file that a filter is read from, and gives the filter.
fn check_reference(file: &Path, reference: &Reference, report: &mut Report) -> Option<Value> {
    // Envoy sees the file at another place, as in a container; it is shipped beside the one that names it.
    let name = Path::new(&reference.path).file_name().unwrap_or_default();
    let other = file.parent().unwrap_or(Path::new("")).join(name);
    if !other.exists() {
        let problem = format!("path \"{}\": there is no {}", reference.path, other.display());
        report.error(file, &reference.place, &problem);
        return None;
    }
    println!("{}", line(file, &reference.place, &format!("stands in {}", other.display())));
    check_file(&other, report);
    let (_, documents) = read(&other).ok()?;
    match config_files::ecds_resource(documents.first()?, Some(&reference.name)) {
        Ok(resource) => {
            // Envoy reads it with the file that names it.
            report.bootstraps.retain(|(file, _)| *file != other);
            Some(resource.get("typed_config")?.clone())
        }
        Err(problem) => {
            report.error(&other, "", &problem);
            None
        }
    }
}

/// Lets Envoy read every bootstrap, with the filter built here.
fn validate(project: &Project, options: &Options, report: &mut Report) -> Result<()> {
    if report.bootstraps.is_empty() {
        return Ok(());
    }
    let module = project.module();
    let envoy = tools::envoy_here(project);
    let missing = match &envoy {
        None => Some("there is no Envoy here (`cargo xtask test` gets one)".to_owned()),
        Some(_) if !module.exists() => {
            Some(format!("there is no {} (`cargo xtask build` makes it)", project.short(&module)))
        }
        Some(_) => None,
    };
    let (Some(envoy), None) = (envoy, &missing) else {
        let missing = missing.unwrap_or_default();
        if options.must_have_envoy {
            bail!("envoy --mode validate: {missing}");
        }
        println!("envoy --mode validate: left out: {missing}");
        return Ok(());
    };
    let folder = project.target("xtask/validate");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (number, (file, mut bootstrap)) in std::mem::take(&mut report.bootstraps).into_iter().enumerate() {
        config_files::set_module(&mut bootstrap, &module.to_string_lossy());
        let inlined = folder.join(format!("{}-{number}.json", std::process::id()));
        fs::write(&inlined, bootstrap.to_string())
            .with_context(|| format!("cannot write {}", inlined.display()))?;
        let mut command = project.command(&envoy);
        command
            .args(["--mode", "validate", "--log-level", "warning", "--log-format", "%v", "-c"])
            .arg(&inlined);
        let what = format!("validating {} with Envoy", file.display());
        let finished = Step::new(&what, command).attempt()?;
        if finished.succeeded() {
            println!("{}", line(&file, "envoy --mode validate", "ok"));
            let _ = fs::remove_file(&inlined);
        } else {
            report.error(&file, "envoy --mode validate", &format!("refused (as {})", inlined.display()));
            for said in finished.output.lines().filter(|line| !line.trim().is_empty()) {
                println!("    {said}");
            }
        }
    }
    Ok(())
}

fn counted(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
