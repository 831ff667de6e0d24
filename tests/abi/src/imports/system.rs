//! Log, clock, ticks, contexts, properties, metrics, and the calls that no filter here may count on.

use anyhow::Result;
use wasmtime::{Caller, Linker};

use crate::call::{Answer, Call, Status, host};
use crate::metrics::Kind;
use crate::vm::VmState;

type Host<'a> = Caller<'a, VmState>;

pub fn add(linker: &mut Linker<VmState>) -> Result<()> {
    linker.func_wrap("env", "proxy_log", |caller: Host, level: u32, data: u32, size: u32| {
        host(caller, "proxy_log", |call| log(call, level, data, size))
    })?;
    linker.func_wrap("env", "proxy_get_log_level", |caller: Host, at: u32| {
        host(caller, "proxy_get_log_level", |call| {
            let level = call.shared(|shared| shared.log_level);
            Ok(call.write_number(at, level)?)
        })
    })?;
    linker.func_wrap("env", "proxy_get_current_time_nanoseconds", |caller: Host, at: u32| {
        host(caller, "proxy_get_current_time_nanoseconds", |call| {
            let now = call.shared(|shared| shared.wall);
            Ok(call.write(at, &now.to_le_bytes())?)
        })
    })?;
    linker.func_wrap("env", "proxy_set_tick_period_milliseconds", |caller: Host, period: u32| {
        host(caller, "proxy_set_tick_period_milliseconds", |call| {
            call.state().effective_root().ok_or(Status::BadArgument)?.tick_period = period;
            Ok(())
        })
    })?;
    linker.func_wrap("env", "proxy_set_effective_context", |caller: Host, id: u32| {
        host(caller, "proxy_set_effective_context", |call| {
            if !call.state().exists(id) {
                return Err(Status::BadArgument.into());
            }
            call.state().effective = Some(id);
            Ok(())
        })
    })?;
    linker.func_wrap("env", "proxy_done", |caller: Host| {
        // Only a context whose `on_done` said "not yet" may say so, and none of this host waits for one.
        host(caller, "proxy_done", |_| Err(Status::NotFound.into()))
    })?;
    linker.func_wrap(
        "env",
        "proxy_get_property",
        |caller: Host, path: u32, length: u32, data_at: u32, size_at: u32| {
            host(caller, "proxy_get_property", |call| {
                let path = call.bytes(path, length)?;
                let value = property(call, &path).ok_or(Status::NotFound)?;
                call.hand_over(&value, data_at, size_at)
            })
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_property",
        |caller: Host, path: u32, length: u32, data: u32, size: u32| {
            host(caller, "proxy_set_property", |call| {
                let (path, value) = (call.bytes(path, length)?, call.bytes(data, size)?);
                call.stream().map_err(|_| Status::NotFound)?.properties.insert(path, value);
                Ok(())
            })
        },
    )?;
    linker.func_wrap("env", "proxy_get_status", |caller: Host, code: u32, data_at: u32, size_at: u32| {
        host(caller, "proxy_get_status", |call| {
            call.write_number(code, 0)?;
            call.hand_over(&[], data_at, size_at)
        })
    })?;
    add_metrics(linker)?;
    add_calls_to_others(linker)
}

fn log(call: &mut Call<'_>, level: u32, data: u32, size: u32) -> Answer {
    const CRITICAL: u32 = 5;
    if level > CRITICAL {
        return Err(Status::BadArgument.into());
    }
    let line = call.text(data, size)?;
    call.shared(|shared| shared.log.push((level, line)));
    Ok(())
}

fn property(call: &mut Call<'_>, path: &[u8]) -> Option<Vec<u8>> {
    match path {
        b"plugin_name" => Some(b"predictgate".to_vec()),
        b"plugin_root_id" => Some(Vec::new()),
        b"plugin_vm_id" => Some(b"predictgate".to_vec()),
        _ => call.stream().ok()?.property(path),
    }
}

fn add_metrics(linker: &mut Linker<VmState>) -> Result<()> {
    linker.func_wrap(
        "env",
        "proxy_define_metric",
        |caller: Host, kind: u32, name: u32, size: u32, id_at: u32| {
            host(caller, "proxy_define_metric", |call| {
                let name = call.text(name, size)?;
                let kind = match kind {
                    0 => Kind::Counter,
                    1 => Kind::Gauge,
                    2 => Kind::Histogram,
                    _ => return Err(Status::BadArgument.into()),
                };
                call.shared(|shared| shared.metrics.define(kind, &name));
                // Envoy keeps the kind in the two lowest bits of an identifier.
                let place = u32::try_from(call.state().metrics.len()).map_err(|_| Status::InternalFailure)?;
                call.state().metrics.push((kind, name));
                Ok(call.write_number(id_at, (place << 2) | kind as u32)?)
            })
        },
    )?;
    linker.func_wrap("env", "proxy_increment_metric", |caller: Host, id: u32, offset: i64| {
        host(caller, "proxy_increment_metric", |call| {
            let name = metric(call, id)?;
            Ok(call.shared(|shared| shared.metrics.increment(&name, offset))?)
        })
    })?;
    linker.func_wrap("env", "proxy_record_metric", |caller: Host, id: u32, value: u64| {
        host(caller, "proxy_record_metric", |call| {
            let name = metric(call, id)?;
            Ok(call.shared(|shared| shared.metrics.record(&name, value))?)
        })
    })?;
    linker.func_wrap("env", "proxy_get_metric", |caller: Host, id: u32, value_at: u32| {
        host(caller, "proxy_get_metric", |call| {
            let name = metric(call, id)?;
            let value = call.shared(|shared| shared.metrics.get(&name))?;
            Ok(call.write(value_at, &value.to_le_bytes())?)
        })
    })?;
    Ok(())
}

fn metric(call: &mut Call<'_>, id: u32) -> Result<String, Status> {
    let (kind, name) = call.state().metrics.get((id >> 2) as usize).ok_or(Status::NotFound)?;
    if *kind as u32 == id & 3 { Ok(name.clone()) } else { Err(Status::NotFound) }
}

/// Calls to other services: this process has no clusters, so each answers as for an unknown one.
fn add_calls_to_others(linker: &mut Linker<VmState>) -> Result<()> {
    linker.func_wrap(
        "env",
        "proxy_http_call",
        |caller: Host, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32| {
            host(caller, "proxy_http_call", |_| Err(Status::BadArgument.into()))
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_grpc_call",
        |caller: Host,
         _: u32,
         _: u32,
         _: u32,
         _: u32,
         _: u32,
         _: u32,
         _: u32,
         _: u32,
         _: u32,
         _: u32,
         _: u32,
         _: u32| { host(caller, "proxy_grpc_call", |_| Err(Status::ParseFailure.into())) },
    )?;
    linker.func_wrap(
        "env",
        "proxy_grpc_stream",
        |caller: Host, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32| {
            host(caller, "proxy_grpc_stream", |_| Err(Status::ParseFailure.into()))
        },
    )?;
    linker.func_wrap("env", "proxy_grpc_send", |caller: Host, _: u32, _: u32, _: u32, _: u32| {
        host(caller, "proxy_grpc_send", |_| Err(Status::NotFound.into()))
    })?;
    for name in ["proxy_grpc_cancel", "proxy_grpc_close"] {
        linker.func_wrap("env", name, move |caller: Host, _: u32| {
            host(caller, name, |_| Err(Status::NotFound.into()))
        })?;
    }
    linker.func_wrap(
        "env",
        "proxy_call_foreign_function",
        |caller: Host, name: u32, size: u32, _: u32, _: u32, data_at: u32, size_at: u32| {
            host(caller, "proxy_call_foreign_function", |call| match call.bytes(name, size)?.as_slice() {
                b"clear_route_cache" => call.hand_over(&[], data_at, size_at),
                _ => Err(Status::NotFound.into()),
            })
        },
    )?;
    Ok(())
}
