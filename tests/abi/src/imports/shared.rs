//! Shared data and shared queues.

use anyhow::Result;
use wasmtime::{Caller, Linker};

use crate::call::host;
use crate::vm::VmState;

type Host<'a> = Caller<'a, VmState>;

pub fn add(linker: &mut Linker<VmState>) -> Result<()> {
    linker.func_wrap(
        "env",
        "proxy_get_shared_data",
        |caller: Host, key: u32, key_size: u32, data_at: u32, size_at: u32, token_at: u32| {
            host(caller, "proxy_get_shared_data", |call| {
                let key = call.bytes(key, key_size)?;
                let found =
                    call.shared(|shared| shared.data.get(&key).map(|(value, token)| (value.to_vec(), token)));
                let (value, token) = found?;
                call.hand_over(&value, data_at, size_at)?;
                Ok(call.write_number(token_at, token)?)
            })
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_shared_data",
        |caller: Host, key: u32, key_size: u32, data: u32, size: u32, token: u32| {
            host(caller, "proxy_set_shared_data", |call| {
                let (key, value) = (call.bytes(key, key_size)?, call.bytes(data, size)?);
                Ok(call.shared(|shared| shared.data.set(&key, &value, token))?)
            })
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_register_shared_queue",
        |caller: Host, name: u32, size: u32, id_at: u32| {
            host(caller, "proxy_register_shared_queue", |call| {
                let name = call.bytes(name, size)?;
                let id = call.shared(|shared| shared.queues.register(&name));
                Ok(call.write_number(id_at, id)?)
            })
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_resolve_shared_queue",
        |caller: Host, _: u32, _: u32, name: u32, size: u32, id_at: u32| {
            host(caller, "proxy_resolve_shared_queue", |call| {
                let name = call.bytes(name, size)?;
                let id = call.shared(|shared| shared.queues.resolve(&name))?;
                Ok(call.write_number(id_at, id)?)
            })
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_enqueue_shared_queue",
        |caller: Host, id: u32, data: u32, size: u32| {
            host(caller, "proxy_enqueue_shared_queue", |call| {
                let value = call.bytes(data, size)?;
                Ok(call.shared(|shared| shared.queues.enqueue(id, &value))?)
            })
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_dequeue_shared_queue",
        |caller: Host, id: u32, data_at: u32, size_at: u32| {
            host(caller, "proxy_dequeue_shared_queue", |call| {
                let value = call.shared(|shared| shared.queues.dequeue(id))?;
                call.hand_over(&value, data_at, size_at)
            })
        },
    )?;
    Ok(())
}
