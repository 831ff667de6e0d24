//! Headers, bodies and the stream itself.

use anyhow::Result;
use wasmtime::{Caller, Linker};

use crate::call::{Answer, Call, Status, host};
use crate::context::{Reply, Stage};
use crate::map::Map;
use crate::vm::{Deferred, Direction, VmState};

type Host<'a> = Caller<'a, VmState>;

pub fn add(linker: &mut Linker<VmState>) -> Result<()> {
    add_maps(linker)?;
    add_buffers(linker)?;
    add_stream(linker)
}

/// The map as it can be read in this stage; `None` when there is none to read.
fn readable(call: &mut Call<'_>, map: u32) -> Result<Option<Map>, Status> {
    const LAST: u32 = 7;
    let stream = match (map, call.stream()) {
        (0..=3, Ok(stream)) => stream,
        (..=LAST, _) => return Ok(None),
        _ => return Err(Status::BadArgument),
    };
    let logging = stream.stage == Stage::Log;
    let requesting = stream.stage == Stage::Request;
    Ok(match map {
        0 if logging => stream.request.headers.clone(),
        0 if requesting => stream.request.open_headers().cloned(),
        1 if logging => None,
        1 => stream.request.open_trailers().cloned(),
        2 if logging => stream.response.headers.clone(),
        2 => stream.response.open_headers().cloned(),
        3 if logging => stream.response.trailers.clone(),
        3 => stream.response.open_trailers().cloned(),
        _ => None,
    })
}

/// The map as long as it can be changed: it has not gone on.
fn changeable<'a>(call: &'a mut Call<'_>, map: u32) -> Result<&'a mut Map, Status> {
    let stream = call.stream()?;
    let open = match (map, stream.stage) {
        (_, Stage::Log) => None,
        (0, Stage::Request) => stream.request.open_headers(),
        (1, Stage::Request) => stream.request.open_trailers(),
        (2, _) => stream.response.open_headers(),
        (3, _) => stream.response.open_trailers(),
        _ => None,
    };
    open.ok_or(Status::BadArgument)
}

fn add_maps(linker: &mut Linker<VmState>) -> Result<()> {
    linker.func_wrap(
        "env",
        "proxy_get_header_map_pairs",
        |caller: Host, map: u32, data_at: u32, size_at: u32| {
            host(caller, "proxy_get_header_map_pairs", |call| {
                // A map that is not there has no pairs; only single values tell the difference.
                let pairs = readable(call, map)?.unwrap_or_default().serialise();
                call.hand_over(&pairs, data_at, size_at)
            })
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_header_map_pairs",
        |caller: Host, map: u32, data: u32, size: u32| {
            host(caller, "proxy_set_header_map_pairs", |call| {
                let pairs = Map::deserialise(&call.bytes(data, size)?).ok_or(Status::BadArgument)?;
                *changeable(call, map)? = pairs;
                Ok(())
            })
        },
    )?;
    linker.func_wrap("env", "proxy_get_header_map_size", |caller: Host, map: u32, size_at: u32| {
        host(caller, "proxy_get_header_map_size", |call| {
            let map = readable(call, map)?.ok_or(Status::BadArgument)?;
            let size: usize = map.pairs().map(|(name, value)| name.len() + value.len()).sum();
            Ok(call.write_number(size_at, u32::try_from(size).map_err(|_| Status::InternalFailure)?)?)
        })
    })?;
    linker.func_wrap(
        "env",
        "proxy_get_header_map_value",
        |caller: Host, map: u32, name: u32, size: u32, data_at: u32, size_at: u32| {
            host(caller, "proxy_get_header_map_value", |call| {
                let name = call.bytes(name, size)?;
                let map = readable(call, map)?.ok_or(Status::BadArgument)?;
                let value = map.get(&name).ok_or(Status::NotFound)?;
                call.hand_over(value, data_at, size_at)
            })
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_add_header_map_value",
        |caller: Host, map: u32, name: u32, name_size: u32, value: u32, value_size: u32| {
            host(caller, "proxy_add_header_map_value", |call| {
                let (name, value) = (call.bytes(name, name_size)?, call.bytes(value, value_size)?);
                changeable(call, map)?.add(name, value);
                Ok(())
            })
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_replace_header_map_value",
        |caller: Host, map: u32, name: u32, name_size: u32, value: u32, value_size: u32| {
            host(caller, "proxy_replace_header_map_value", |call| {
                let (name, value) = (call.bytes(name, name_size)?, call.bytes(value, value_size)?);
                changeable(call, map)?.replace(name, value);
                Ok(())
            })
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_remove_header_map_value",
        |caller: Host, map: u32, name: u32, size: u32| {
            host(caller, "proxy_remove_header_map_value", |call| {
                let name = call.bytes(name, size)?;
                changeable(call, map)?.remove(name);
                Ok(())
            })
        },
    )?;
    Ok(())
}

const REQUEST_BODY: u32 = 0;
const RESPONSE_BODY: u32 = 1;
const VM_CONFIGURATION: u32 = 6;
const PLUGIN_CONFIGURATION: u32 = 7;

fn body<'a>(call: &'a mut Call<'_>, buffer: u32) -> Result<&'a mut Vec<u8>, Status> {
    let stream = call.stream().map_err(|_| Status::NotFound)?;
    let body = match buffer {
        REQUEST_BODY => stream.request.buffer(),
        RESPONSE_BODY => stream.response.buffer(),
        _ => None,
    };
    body.ok_or(Status::NotFound)
}

fn add_buffers(linker: &mut Linker<VmState>) -> Result<()> {
    linker.func_wrap(
        "env",
        "proxy_get_buffer_bytes",
        |caller: Host, buffer: u32, start: u32, length: u32, data_at: u32, size_at: u32| {
            host(caller, "proxy_get_buffer_bytes", |call| {
                let whole = match buffer {
                    VM_CONFIGURATION => Vec::new(),
                    PLUGIN_CONFIGURATION => call.state().configuration.clone().ok_or(Status::NotFound)?,
                    _ => body(call, buffer)?.clone(),
                };
                let start = start as usize;
                let end = start.checked_add(length as usize).ok_or(Status::BadArgument)?.min(whole.len());
                match whole.get(start..end) {
                    // Envoy writes nothing at all when there is nothing to hand over.
                    Some([]) | None => Ok(()),
                    Some(part) => call.hand_over(part, data_at, size_at),
                }
            })
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_get_buffer_status",
        |caller: Host, buffer: u32, size_at: u32, flags_at: u32| {
            host(caller, "proxy_get_buffer_status", |call| {
                let size = u32::try_from(body(call, buffer)?.len()).map_err(|_| Status::InternalFailure)?;
                call.write_number(size_at, size)?;
                Ok(call.write_number(flags_at, 0)?)
            })
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_buffer_bytes",
        |caller: Host, buffer: u32, start: u32, length: u32, data: u32, size: u32| {
            host(caller, "proxy_set_buffer_bytes", |call| {
                let new = call.bytes(data, size)?;
                write_body(body(call, buffer)?, start as usize, length as usize, &new)
            })
        },
    )?;
    Ok(())
}

/// Envoy can prepend, append and replace all; it cannot replace a part.
fn write_body(body: &mut Vec<u8>, start: usize, length: usize, new: &[u8]) -> Answer {
    if start == 0 && length == 0 {
        body.splice(0..0, new.iter().copied());
    } else if start == 0 && length >= body.len() {
        *body = new.to_vec();
    } else if start >= body.len() {
        body.extend_from_slice(new);
    } else {
        return Err(Status::BadArgument.into());
    }
    Ok(())
}

fn add_stream(linker: &mut Linker<VmState>) -> Result<()> {
    linker.func_wrap("env", "proxy_continue_stream", |caller: Host, kind: u32| {
        host(caller, "proxy_continue_stream", |call| {
            let direction = match kind {
                0 => Direction::Request,
                1 => Direction::Response,
                _ => return Err(Status::BadArgument.into()),
            };
            let state = call.state();
            let id = state.effective_context();
            state.deferred.push_back(Deferred::Continue(id, direction));
            Ok(())
        })
    })?;
    linker.func_wrap("env", "proxy_close_stream", |caller: Host, kind: u32| {
        host(caller, "proxy_close_stream", |call| {
            const UPSTREAM: u32 = 3;
            if kind > UPSTREAM {
                return Err(Status::BadArgument.into());
            }
            let state = call.state();
            let id = state.effective_context();
            state.deferred.push_back(Deferred::Close(id));
            Ok(())
        })
    })?;
    linker.func_wrap(
        "env",
        "proxy_send_local_response",
        |caller: Host,
         http_status: u32,
         details: u32,
         details_size: u32,
         body: u32,
         body_size: u32,
         headers: u32,
         headers_size: u32,
         grpc_status: i32| {
            host(caller, "proxy_send_local_response", |call| {
                let reply = Reply {
                    http_status,
                    grpc_status: u32::try_from(grpc_status).ok(),
                    details: call.text(details, details_size)?,
                    body: call.bytes(body, body_size)?,
                    headers: Map::deserialise(&call.bytes(headers, headers_size)?).unwrap_or_default(),
                };
                let state = call.state();
                let id = state.effective_context();
                state.deferred.push_back(Deferred::Reply(id, reply));
                state.stop_iteration = true;
                Ok(())
            })
        },
    )?;
    Ok(())
}
