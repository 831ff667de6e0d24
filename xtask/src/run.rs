//! Runs commands, and shows that they are at work.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// How often a step says that it is still at work where there is no terminal.
const STILL_AT_WORK: Duration = Duration::from_secs(15);
/// How long the output of a finished command is read on: a process that it left behind may hold the pipe.
const LAST_OUTPUT: Duration = Duration::from_secs(1);
/// How much of a failed command's output is shown.
const TAIL_LINES: usize = 60;
/// A disk with less room is named beside a failure, in bytes: linkers and tests fail of it in words that do not say so.
const LITTLE_ROOM: u64 = 1 << 30;

/// This machine cannot do it, though nothing is wrong with the project: what is missing and how to get it.
#[derive(Debug)]
pub struct Unavailable {
    reason: String,
    /// What is missing is nothing that these commands install.
    is_elsewhere: bool,
}

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Unavailable {}

impl Unavailable {
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_elsewhere: false }
    }
}

pub fn unavailable(reason: impl Into<String>) -> anyhow::Error {
    Unavailable::new(reason).into()
}

/// What is missing is nothing that these commands install.
pub fn elsewhere(reason: impl Into<String>) -> anyhow::Error {
    Unavailable { reason: reason.into(), is_elsewhere: true }.into()
}

pub fn is_unavailable(error: &anyhow::Error) -> bool {
    error.is::<Unavailable>()
}

pub fn is_elsewhere(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Unavailable>().is_some_and(|it| it.is_elsewhere)
}

/// A command that may take a while.
pub struct Step<'a> {
    what: &'a str,
    command: Command,
    next: Option<&'a str>,
    limit: Option<Duration>,
}

pub struct Finished {
    /// `None` when the command was stopped at its limit.
    pub status: Option<ExitStatus>,
    /// Both streams, in the order in which their lines came.
    pub output: String,
    command: String,
    /// Bytes left on the disk of the folder in which it ran, right after it failed.
    room: Option<u64>,
}

impl<'a> Step<'a> {
    /// `what` completes the sentence "now it is ...": "building the filter".
    pub fn new(what: &'a str, command: Command) -> Self {
        Self { what, command, next: None, limit: None }
    }

    /// What to try when it fails.
    pub fn next(mut self, next: &'a str) -> Self {
        self.next = Some(next);
        self
    }

    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Runs the command and gives its output.
    ///
    /// # Errors
    ///
    /// Fails when the command cannot be started or does not exit with 0: with the end of its output.
    pub fn run(self, logs: &Path) -> Result<String> {
        let (what, next) = (self.what, self.next);
        let finished = self.attempt()?;
        if finished.succeeded() {
            return Ok(finished.output);
        }
        bail!("{}", finished.failure(what, next, logs));
    }

    /// Runs the command and gives what came of it, good or bad.
    ///
    /// # Errors
    ///
    /// Fails when the command cannot be started.
    pub fn attempt(mut self) -> Result<Finished> {
        let shown = shown(&self.command);
        let started = Instant::now();
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().with_context(|| format!("cannot start `{shown}`"))?;
        let lines = lines_of(&mut child);
        let progress = Progress::start(self.what);
        let mut output = String::new();
        let mut exited: Option<(ExitStatus, Instant)> = None;
        let mut stopped = false;
        loop {
            match lines.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => {
                    progress.line(&line);
                    output.push_str(&line);
                    output.push('\n');
                    exited = exited.map(|(status, _)| (status, Instant::now()));
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            progress.tick(started.elapsed());
            match exited {
                Some((_, at)) if LAST_OUTPUT < at.elapsed() => break,
                Some(_) => {}
                None => exited = child.try_wait()?.map(|status| (status, Instant::now())),
            }
            if exited.is_none() && self.limit.is_some_and(|limit| limit < started.elapsed()) {
                child.kill()?;
                stopped = true;
            }
        }
        let status = child.wait()?;
        let status = (!stopped).then_some(status);
        let succeeded = status.is_some_and(|status| status.success());
        let room =
            if succeeded { None } else { room(self.command.get_current_dir().unwrap_or(Path::new("."))) };
        progress.finish(started.elapsed(), succeeded);
        Ok(Finished { status, output, command: shown, room })
    }
}

impl Finished {
    pub fn succeeded(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// Names the command, how it ended, the end of its output without what only says that the work went on, where the
    /// whole of it is, and what to try.
    pub fn failure(&self, what: &str, next: Option<&str>, logs: &Path) -> String {
        let mut text = format!("{what}: {}", self.ended());
        let (tail, cut) = tail(&self.output, TAIL_LINES);
        for line in tail {
            let _ = write!(text, "\n    {line}");
        }
        if cut {
            let _ = write!(text, "\n{}", self.saved(what, logs));
        }
        if let Some(next) = next {
            let _ = write!(text, "\nnext: {next}");
        }
        text
    }

    /// The command and how it ended, and whether the disk may be why.
    pub fn ended(&self) -> String {
        let how = match self.status {
            None => "was stopped, because it took too long".to_owned(),
            Some(status) => match status.code() {
                Some(code) => format!("failed with exit code {code}"),
                None => format!("was ended: {status}"),
            },
        };
        let disk = match self.room {
            Some(room) if room < LITTLE_ROOM => {
                format!(" (the disk has {} MiB left, which may be why; `cargo clean` makes room)", room >> 20)
            }
            _ => String::new(),
        };
        format!("`{}` {how}{disk}", self.command)
    }

    /// Keeps the whole output in a file, and says in which.
    pub fn saved(&self, what: &str, logs: &Path) -> String {
        let name: String = what.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let log = logs.join(format!("{name}.log"));
        match std::fs::create_dir_all(logs).and_then(|()| std::fs::write(&log, &self.output)) {
            Ok(()) => format!("the whole output: {}", log.display()),
            Err(error) => format!("the whole output cannot be kept in {}: {error}", log.display()),
        }
    }
}

/// Runs a short command and gives its standard output; `None` when it cannot be started or fails.
pub fn output_of(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What is left for others than root on the disk of `folder`, in bytes.
fn room(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// The command as one would type it.
pub fn shown(command: &Command) -> String {
    let mut text = String::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            let _ = write!(text, "{}={} ", name.to_string_lossy(), quoted(&value.to_string_lossy()));
        }
    }
    text.push_str(&quoted(&command.get_program().to_string_lossy()));
    for argument in command.get_args() {
        let _ = write!(text, " {}", quoted(&argument.to_string_lossy()));
    }
    text
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./,:+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The last lines that may say what went wrong, and whether there were others.
fn tail(output: &str, lines: usize) -> (VecDeque<&str>, bool) {
    let mut last = VecDeque::new();
    let mut cut = false;
    for line in output.lines() {
        if only_says_that_it_goes_on(line) {
            cut = true;
            continue;
        }
        if last.len() == lines {
            last.pop_front();
            cut = true;
        }
        last.push_back(line);
    }
    (last, cut)
}

/// Cargo names each crate that it gets or compiles, and each test that passes: hundreds of lines around one error.
fn only_says_that_it_goes_on(line: &str) -> bool {
    let of_cargo = ["Compiling", "Checking", "Downloading", "Downloaded"];
    let word = line.split_whitespace().next().unwrap_or_default();
    line.starts_with(' ') && of_cargo.contains(&word)
        || line.starts_with("test ") && line.ends_with(" ... ok")
}

fn lines_of(child: &mut Child) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        send_lines(stdout, sender.clone());
    }
    if let Some(stderr) = child.stderr.take() {
        send_lines(stderr, sender);
    }
    receiver
}

fn send_lines(stream: impl Read + Send + 'static, sender: Sender<String>) {
    thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).is_ok_and(|read| 0 < read) {
            let text = String::from_utf8_lossy(&line);
            if sender.send(text.trim_end_matches(['\n', '\r']).to_owned()).is_err() {
                break;
            }
            line.clear();
        }
    });
}

/// A spinner on a terminal, a line now and then elsewhere.
enum Progress<'a> {
    Terminal(ProgressBar, &'a str),
    Lines { what: &'a str, said: std::cell::Cell<Duration>, last: std::cell::RefCell<String> },
}

impl<'a> Progress<'a> {
    fn start(what: &'a str) -> Self {
        if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} ({elapsed}) {wide_msg:.dim}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(what.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            Self::Terminal(bar, what)
        } else {
            eprintln!("{what}");
            Self::Lines { what, said: Duration::ZERO.into(), last: String::new().into() }
        }
    }

    fn line(&self, line: &str) {
        match self {
            Self::Terminal(bar, _) => bar.set_message(line.trim().to_owned()),
            Self::Lines { last, .. } => line.trim().clone_into(&mut last.borrow_mut()),
        }
    }

    fn tick(&self, elapsed: Duration) {
        if let Self::Lines { what, said, last } = self
            && said.get() + STILL_AT_WORK <= elapsed
        {
            said.set(elapsed);
            eprintln!("... still {what} ({} s): {}", elapsed.as_secs(), last.borrow());
        }
    }

    fn finish(self, elapsed: Duration, succeeded: bool) {
        let end = if succeeded { "done" } else { "failed" };
        let what = match self {
            Self::Terminal(bar, what) => {
                bar.finish_and_clear();
                what
            }
            Self::Lines { what, .. } => what,
        };
        if !succeeded || Duration::from_secs(1) <= elapsed {
            eprintln!("{what}: {end} in {:.1} s", elapsed.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let mut command = Command::new("cargo");
        command.args(["build", "it's", "a b", ""]).env("RUSTFLAGS", "-C x").env_remove("PATH");
        assert_eq!(shown(&command), r"RUSTFLAGS='-C x' cargo build 'it'\''s' 'a b' ''");
    }

    #[test]
    fn a_failure_names_the_command_its_end_its_output_and_what_to_try() {
        let logs = Path::new("unused");
        let step = Step::new("trying", shell("echo out; echo err >&2; exit 3")).next("try again");
        let text = step.run(logs).unwrap_err().to_string();
        assert!(text.starts_with("trying: `sh -c '"), "{text}");
        assert!(text.contains("failed with exit code 3"), "{text}");
        assert!(text.contains("\n    out") && text.contains("\n    err"), "{text}");
        assert!(text.ends_with("\nnext: try again"), "{text}");
    }

    #[test]
    fn a_full_disk_is_named_beside_a_failure() {
        let mut finished = Step::new("trying", shell("exit 1")).attempt().unwrap();
        assert!(finished.room.is_some());
        finished.room = Some(12 << 20);
        assert!(
            finished.ended().contains("failed with exit code 1 (the disk has 12 MiB left"),
            "{}",
            finished.ended()
        );
        finished.room = Some(LITTLE_ROOM);
        assert!(finished.ended().ends_with("exit code 1"), "{}", finished.ended());
    }

    #[test]
    fn a_command_is_stopped_at_its_limit() {
        let step = Step::new("waiting", shell("exec sleep 600")).limit(Duration::from_millis(50));
        assert!(step.attempt().unwrap().status.is_none());
    }

    #[test]
    fn a_process_that_is_left_behind_does_not_hold_the_step() {
        let finished = Step::new("leaving", shell("sleep 600 & echo $!")).attempt().unwrap();
        assert!(finished.succeeded());
        let left = finished.output.trim();
        assert!(Command::new("kill").arg(left).status().unwrap().success(), "{left} had ended by itself");
    }

    #[test]
    fn only_the_end_of_a_long_output_is_shown() {
        let (last, cut) = tail("a\nb\nc", 2);
        assert_eq!((last, cut), (["b", "c"].into(), true));
        let (last, cut) = tail("a\nb", 2);
        assert_eq!((last, cut), (["a", "b"].into(), false));
    }

    #[test]
    fn what_only_says_that_the_work_goes_on_does_not_hide_the_error() {
        let output = "error: no space\n   Compiling serde v1.0.0\n  Downloaded log v0.4.0\ntest a ... ok\ntest b ... FAILED";
        assert_eq!(tail(output, 3), (["error: no space", "test b ... FAILED"].into(), true));
        assert_eq!(tail("Compiling is hard\n    Compilingx", 3).0.len(), 2);
    }
}
