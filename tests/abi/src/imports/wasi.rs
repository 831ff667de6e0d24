//! The WASI calls that Rust's standard library makes in a VM of Envoy, with the test's clock and chance.

use anyhow::{Result, anyhow};
use wasmtime::{Caller, Linker};

use crate::call::{Call, Status};
use crate::vm::VmState;

type Host<'a> = Caller<'a, VmState>;

const WASI: &str = "wasi_snapshot_preview1";

const SUCCESS: u32 = 0;
const BAD_DESCRIPTOR: u32 = 8;
const FAULT: u32 = 21;
const NOT_SUPPORTED: u32 = 58;

/// Runs one WASI call, whose only failure beside its own codes is memory out of bounds.
fn wasi(
    caller: Host,
    import: &'static str,
    answer: impl FnOnce(&mut Call<'_>) -> Result<u32, Status>,
) -> Result<u32> {
    let mut call = Call(caller);
    call.enter(import)?;
    Ok(answer(&mut call).unwrap_or(FAULT))
}

pub fn add(linker: &mut Linker<VmState>) -> Result<()> {
    linker.func_wrap(WASI, "clock_time_get", |caller: Host, clock: u32, _: u64, at: u32| {
        wasi(caller, "clock_time_get", |call| {
            let now = match clock {
                0 => call.shared(|shared| shared.wall),
                1 => call.shared(|shared| shared.monotonic),
                _ => return Ok(NOT_SUPPORTED),
            };
            call.write(at, &now.to_le_bytes())?;
            Ok(SUCCESS)
        })
    })?;
    linker.func_wrap(WASI, "random_get", |caller: Host, at: u32, size: u32| {
        wasi(caller, "random_get", |call| {
            let drawn =
                call.shared(|shared| (0..size).map(|_| shared.draw().to_le_bytes()[7]).collect::<Vec<_>>());
            call.write(at, &drawn)?;
            Ok(SUCCESS)
        })
    })?;
    for name in ["environ_sizes_get", "args_sizes_get"] {
        linker.func_wrap(WASI, name, move |caller: Host, count_at: u32, size_at: u32| {
            wasi(caller, name, |call| {
                call.write_number(count_at, 0)?;
                call.write_number(size_at, 0)?;
                Ok(SUCCESS)
            })
        })?;
    }
    for name in ["environ_get", "args_get"] {
        linker
            .func_wrap(WASI, name, move |caller: Host, _: u32, _: u32| wasi(caller, name, |_| Ok(SUCCESS)))?;
    }
    linker.func_wrap(
        WASI,
        "fd_write",
        |caller: Host, descriptor: u32, pieces: u32, count: u32, at: u32| {
            wasi(caller, "fd_write", |call| {
                let level = match descriptor {
                    1 => 2,
                    2 => 4,
                    _ => return Ok(BAD_DESCRIPTOR),
                };
                let mut written = Vec::new();
                for piece in 0..count {
                    let place = call.bytes(pieces + piece * 8, 8)?;
                    let number = |at: usize| {
                        u32::from_le_bytes([place[at], place[at + 1], place[at + 2], place[at + 3]])
                    };
                    written.extend(call.bytes(number(0), number(4))?);
                }
                let line = String::from_utf8_lossy(&written).trim_end().to_owned();
                call.shared(|shared| shared.log.push((level, line)));
                call.write_number(at, u32::try_from(written.len()).unwrap_or(u32::MAX))?;
                Ok(SUCCESS)
            })
        },
    )?;
    linker.func_wrap(WASI, "sched_yield", |caller: Host| wasi(caller, "sched_yield", |_| Ok(SUCCESS)))?;
    linker.func_wrap(WASI, "proc_exit", |caller: Host, code: u32| -> Result<()> {
        Call(caller).enter("proc_exit")?;
        Err(anyhow!("the module exited with {code}"))
    })?;
    Ok(())
}
