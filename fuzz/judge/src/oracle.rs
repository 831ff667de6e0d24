//! The real libprotobuf, in a process of its own.

use std::fs;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use predictgate::identity::{Layout, ModelSpec};
use predictgate::units::{Asked, Version};

use crate::message::Message;

const NEEDED: &str = "it needs g++, protoc and libprotobuf; on Debian 12 and later these packages have them:
    apt-get install -y --no-install-recommends g++ libprotobuf-dev protobuf-compiler";

/// Builds the oracle into `folder`, unless it is there and newer than its sources.
///
/// # Errors
///
/// Fails when a compiler is missing or fails: with its output and the packages that are needed.
pub fn build(folder: &Path) -> Result<PathBuf> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../oracle");
    let (code, schema) = (sources.join("oracle.cc"), sources.join("identity.proto"));
    let program = folder.join("oracle");
    let changed =
        |path: &Path| fs::metadata(path).and_then(|it| it.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    if changed(&program) > changed(&code).max(changed(&schema)) {
        return Ok(program);
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut protoc = Command::new("protoc");
    protoc.arg("--proto_path").arg(&sources).arg("--cpp_out").arg(folder).arg(&schema);
    run(protoc)?;
    let mut compiler = Command::new("g++");
    compiler.args(["-std=c++17", "-O2", "-Wall", "-Wextra", "-I"]).arg(folder).arg(&code);
    compiler.arg(folder.join("identity.pb.cc")).args(["-lprotobuf", "-pthread", "-o"]).arg(&program);
    run(compiler)?;
    Ok(program)
}

fn run(mut command: Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| anyhow!("cannot start {name}: {error}\n{NEEDED}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} cannot build the oracle:\n{said}\n{NEEDED}");
    Ok(())
}

pub struct Oracle {
    process: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Oracle {
    /// # Errors
    ///
    /// Fails when the program cannot be started.
    pub fn start(program: &Path) -> Result<Self> {
        let mut process = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let to = process.stdin.take();
        let from = process.stdout.take().context("the oracle has no output")?;
        Ok(Self { process, to, from: BufReader::with_capacity(1 << 16, from) })
    }

    /// What libprotobuf reads in each message; nothing where it rejects the message.
    ///
    /// # Errors
    ///
    /// Fails when the oracle ends, or reads a message differently in pieces than as a whole.
    pub fn read(&mut self, messages: &[Message]) -> Result<Vec<Option<ModelSpec>>> {
        let mut batch = vec![0; 4];
        for Message { layout, bytes } in messages {
            batch.push(match layout {
                Layout::ModelSpec => 0,
                Layout::FirstTask => 1,
                Layout::NameAndVersion => 2,
            });
            batch.extend(u32::try_from(bytes.len())?.to_le_bytes());
            batch.extend_from_slice(bytes);
        }
        let length = u32::try_from(batch.len() - 4)?.to_le_bytes();
        batch[..4].copy_from_slice(&length);
        self.to
            .as_mut()
            .context("the oracle has no input")?
            .write_all(&batch)
            .context("the oracle has ended")?;
        let mut length = [0; 4];
        self.from.read_exact(&mut length).context("the oracle has ended")?;
        let mut answers = vec![0; u32::from_le_bytes(length) as usize];
        self.from.read_exact(&mut answers).context("the oracle has ended")?;
        let mut answers = Answers(&answers);
        let read = messages.iter().map(|message| answers.next().with_context(|| message.to_string()));
        let read = read.collect::<Result<_>>()?;
        ensure!(answers.0.is_empty(), "the oracle answered more than it was asked");
        Ok(read)
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        // The end of its input ends it.
        self.to = None;
        _ = self.process.wait();
    }
}

struct Answers<'a>(&'a [u8]);

impl Answers<'_> {
    fn next(&mut self) -> Result<Option<ModelSpec>> {
        match self.number::<1>()? {
            [0] => return Ok(None),
            [1] => {}
            [2] => bail!("libprotobuf itself reads this differently in pieces than as a whole"),
            [other] => bail!("the oracle answered {other}, which means nothing"),
        }
        let name = self.text()?;
        let asked = match self.number::<1>()? {
            [0] => Asked::Latest,
            [1] => Asked::Version(Version::Number(i64::from_le_bytes(self.number()?))),
            [2] => Asked::Label(self.text()?.into()),
            _ => match self.text()?.as_str() {
                "" => Asked::Latest,
                text => Asked::Version(Version::parse(text)),
            },
        };
        Ok(Some(ModelSpec { name, asked, signature: self.text()? }))
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (number, rest) = self.0.split_first_chunk().context("an answer is cut short")?;
        self.0 = rest;
        Ok(*number)
    }

    fn text(&mut self) -> Result<String> {
        let length = u32::from_le_bytes(self.number()?) as usize;
        let (text, rest) = self.0.split_at_checked(length).context("an answer is cut short")?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).context("libprotobuf takes for UTF-8 what Rust does not")
    }
}
