//! What one host call has in its hands: the VM that called, its memory, and a status to answer with.

use anyhow::{Result, anyhow};
use wasmtime::Caller;

use crate::context::StreamContext;
use crate::process::Shared;
use crate::vm::VmState;

/// `WasmResult` of proxy-wasm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok = 0,
    NotFound = 1,
    BadArgument = 2,
    ParseFailure = 4,
    InvalidMemoryAccess = 6,
    Empty = 7,
    CasMismatch = 8,
    InternalFailure = 10,
}

/// Why a host call ends early.
pub enum Stop {
    Status(Status),
    Trap(anyhow::Error),
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Trap(error)
    }
}

pub type Answer = Result<(), Stop>;

pub struct Call<'a>(pub Caller<'a, VmState>);

/// Runs one host call: counts it, dies if the test scripted that, and turns its answer into a status.
pub fn host(
    caller: Caller<'_, VmState>,
    import: &'static str,
    answer: impl FnOnce(&mut Call<'_>) -> Answer,
) -> Result<u32> {
    let mut call = Call(caller);
    call.enter(import)?;
    match answer(&mut call) {
        Ok(()) => Ok(Status::Ok as u32),
        Err(Stop::Status(status)) => Ok(status as u32),
        Err(Stop::Trap(error)) => Err(error),
    }
}

impl Call<'_> {
    /// # Errors
    ///
    /// When the test wants the VM to die at this call.
    pub fn enter(&mut self, import: &'static str) -> Result<()> {
        let dies = self.shared(|shared| shared.count(import));
        if dies { Err(anyhow!("the test ended the VM at {import}")) } else { Ok(()) }
    }

    pub fn shared<T>(&self, use_it: impl FnOnce(&mut Shared) -> T) -> T {
        use_it(&mut self.0.data().process.borrow_mut())
    }

    pub fn state(&mut self) -> &mut VmState {
        self.0.data_mut()
    }

    /// The stream that calls act on; a root context is none.
    pub fn stream(&mut self) -> Result<&mut StreamContext, Status> {
        let id = self.state().effective_context();
        self.state().streams.get_mut(&id).filter(|stream| stream.alive).ok_or(Status::BadArgument)
    }

    pub fn bytes(&self, data: u32, size: u32) -> Result<Vec<u8>, Status> {
        let memory = self.0.data().memory.ok_or(Status::InvalidMemoryAccess)?;
        let start = data as usize;
        let end = start.checked_add(size as usize).ok_or(Status::InvalidMemoryAccess)?;
        memory.data(&self.0).get(start..end).map(<[u8]>::to_vec).ok_or(Status::InvalidMemoryAccess)
    }

    pub fn text(&self, data: u32, size: u32) -> Result<String, Status> {
        self.bytes(data, size).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    pub fn write(&mut self, at: u32, bytes: &[u8]) -> Result<(), Status> {
        let memory = self.state().memory.ok_or(Status::InvalidMemoryAccess)?;
        memory.write(&mut self.0, at as usize, bytes).map_err(|_| Status::InvalidMemoryAccess)
    }

    pub fn write_number(&mut self, at: u32, number: u32) -> Result<(), Status> {
        self.write(at, &number.to_le_bytes())
    }

    /// Hands bytes over in memory that the module allocates for them; nothing to hand over needs none.
    pub fn hand_over(&mut self, bytes: &[u8], data_at: u32, size_at: u32) -> Answer {
        let mut data = 0;
        let size = u32::try_from(bytes.len()).map_err(|_| Status::InternalFailure)?;
        if size > 0 {
            let allocate = self.state().allocate.clone().ok_or(Status::InternalFailure)?;
            data = allocate.call(&mut self.0, size)?;
            self.write(data, bytes)?;
        }
        self.write_number(data_at, data)?;
        self.write_number(size_at, size)?;
        Ok(())
    }
}
