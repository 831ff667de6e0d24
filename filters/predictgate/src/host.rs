//! The only file that calls the host.
//!
//! The SDK's own calls panic on a status that they do not expect, such as that of a header set too late, and on
//! header bytes that are not UTF-8, and a panic kills the VM of a whole worker. So the calls are declared here
//! once more: every status is a value, and every string is bytes.

#![deny(clippy::arithmetic_side_effects)]

use predictgate::headers::{Headers, serialise};
use predictgate::store::{Conflict, SharedStore, Version};
use predictgate::units::{Instant, WallTime};
use predictgate::verdict::Answer;

/// The proxy-wasm ABI 0.2.1, as far as it is used, and WASI's clock.
mod abi {
    pub const OK: u32 = 0;

    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        pub fn proxy_get_log_level(level: *mut u32) -> u32;
        pub fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
        pub fn proxy_get_buffer_bytes(
            buffer: u32,
            start: usize,
            most: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub fn proxy_set_buffer_bytes(
            buffer: u32,
            start: usize,
            size: usize,
            data: *const u8,
            data_size: usize,
        ) -> u32;
        pub fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
        pub fn proxy_get_header_map_value(
            map: u32,
            name: *const u8,
            name_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub fn proxy_replace_header_map_value(
            map: u32,
            name: *const u8,
            name_size: usize,
            value: *const u8,
            value_size: usize,
        ) -> u32;
        pub fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32;
        pub fn proxy_get_property(
            path: *const u8,
            path_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub fn proxy_get_shared_data(
            key: *const u8,
            key_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
            token: *mut u32,
        ) -> u32;
        pub fn proxy_set_shared_data(
            key: *const u8,
            key_size: usize,
            data: *const u8,
            size: usize,
            token: u32,
        ) -> u32;
        pub fn proxy_continue_stream(stream: u32) -> u32;
        pub fn proxy_send_local_response(
            status: u32,
            details: *const u8,
            details_size: usize,
            body: *const u8,
            body_size: usize,
            headers: *const u8,
            headers_size: usize,
            grpc_status: i32,
        ) -> u32;
        pub fn proxy_set_effective_context(context: u32) -> u32;
        pub fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
        pub fn proxy_increment_metric(id: u32, offset: i64) -> u32;
        pub fn proxy_record_metric(id: u32, value: u64) -> u32;
    }

    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        pub fn clock_time_get(clock: u32, precision: u64, time: *mut u64) -> u32;
        pub fn random_get(bytes: *mut u8, size: usize) -> u32;
    }
}

/// The header maps of the ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Map {
    Request = 0,
    Response = 2,
    ResponseTrailers = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Buffer {
    RequestBody = 0,
    PluginConfiguration = 7,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MetricKind {
    Counter = 0,
    Gauge = 1,
    Histogram = 2,
}

/// The host said no: the stream is gone, or the moment for the call has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

const fn check(status: u32) -> Result<(), Refused> {
    if status == abi::OK { Ok(()) } else { Err(Refused) }
}

/// Runs a call that returns bytes and takes them over.
fn bytes(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Option<Vec<u8>> {
    let mut data: *mut u8 = std::ptr::null_mut();
    let mut size = 0_usize;
    if call(&raw mut data, &raw mut size) != abi::OK || data.is_null() {
        return None;
    }
    #[expect(clippy::same_length_and_capacity, reason = "the SDK's allocator makes it so")]
    // SAFETY: on success the host hands over a block of `size` bytes that it got from `proxy_on_memory_allocate`,
    // which makes it as a vector of exactly this capacity and gives it up.
    Some(unsafe { Vec::from_raw_parts(data, size, size) })
}

/// The monotonic clock, which all workers of the process share.
pub fn now() -> Instant {
    Instant::from_nanos(clock(1))
}

pub fn wall_time() -> WallTime {
    WallTime::from_nanos(clock(0))
}

/// Nanoseconds on one of WASI's clocks.
fn clock(clock: u32) -> u64 {
    let mut time = 0_u64;
    // SAFETY: the host writes one u64.
    let status = unsafe { abi::clock_time_get(clock, 0, &raw mut time) };
    if status == 0 { time } else { 0 }
}

/// Numbers that nobody can guess.
pub fn random() -> [u64; 3] {
    let mut numbers = [0; 3];
    // SAFETY: the host writes so many bytes, and any bytes are numbers.
    _ = unsafe { abi::random_get((&raw mut numbers).cast(), size_of_val(&numbers)) };
    numbers
}

/// The level at which Envoy logs what Wasm modules say, as the ABI numbers it: 0 is trace, 5 critical.
pub fn log_level() -> u32 {
    let mut level = 2;
    // SAFETY: the host writes one u32.
    _ = unsafe { abi::proxy_get_log_level(&raw mut level) };
    level
}

pub fn set_tick_period(milliseconds: u32) {
    // SAFETY: takes no pointer.
    _ = unsafe { abi::proxy_set_tick_period_milliseconds(milliseconds) };
}

pub fn plugin_configuration() -> Vec<u8> {
    buffer(Buffer::PluginConfiguration, 0, usize::MAX).unwrap_or_default()
}

/// The name of the plugin, which an update of its configuration keeps.
pub fn plugin_name() -> Vec<u8> {
    property(&["plugin_name"]).unwrap_or_default()
}

/// An attribute of the current stream, by the names on the way to it.
pub fn property(path: &[&str]) -> Option<Vec<u8>> {
    let path = path.join("\0");
    // SAFETY: all pointers are valid for the call.
    bytes(|data, size| unsafe { abi::proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

/// Bytes of the request body that the current callback is about.
pub fn request_body(start: usize, most: usize) -> Option<Vec<u8>> {
    buffer(Buffer::RequestBody, start, most)
}

/// Puts `body` in the place of all of the request body that is there.
pub fn replace_request_body(body: &[u8]) -> Result<(), Refused> {
    // SAFETY: the bytes are valid for the call.
    check(unsafe {
        abi::proxy_set_buffer_bytes(Buffer::RequestBody as u32, 0, usize::MAX, body.as_ptr(), body.len())
    })
}

fn buffer(buffer: Buffer, start: usize, most: usize) -> Option<Vec<u8>> {
    // SAFETY: both pointers are valid for the call.
    bytes(|data, size| unsafe { abi::proxy_get_buffer_bytes(buffer as u32, start, most, data, size) })
}

/// All request headers, in one call.
pub fn request_headers() -> Headers {
    // SAFETY: both pointers are valid for the call.
    let map = bytes(|data, size| unsafe { abi::proxy_get_header_map_pairs(Map::Request as u32, data, size) });
    map.map(Headers::from_bytes).unwrap_or_default()
}

/// The first value of a header.
pub fn header(map: Map, name: &str) -> Option<Vec<u8>> {
    // SAFETY: all pointers are valid for the call.
    bytes(|data, size| unsafe {
        abi::proxy_get_header_map_value(map as u32, name.as_ptr(), name.len(), data, size)
    })
}

/// Sets a header to one value, whatever values it had.
pub fn set_header(map: Map, name: &str, value: &str) -> Result<(), Refused> {
    // SAFETY: both strings are valid for the call.
    check(unsafe {
        abi::proxy_replace_header_map_value(
            map as u32,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    })
}

pub fn remove_header(map: Map, name: &str) -> Result<(), Refused> {
    // SAFETY: the string is valid for the call.
    check(unsafe { abi::proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) })
}

/// Shared data, which all workers of the process have in common and which outlives an update.
#[derive(Clone, Copy, Debug)]
pub struct SharedData;

impl SharedStore for SharedData {
    fn load(&self, key: &str) -> (Option<Vec<u8>>, Version) {
        let mut token = 0_u32;
        // SAFETY: all pointers are valid for the call.
        let value = bytes(|data, size| unsafe {
            abi::proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &raw mut token)
        });
        // Every write has a token above zero, so a key that is there and empty has one too.
        let version = if token == 0 { Version::Absent } else { Version::At(token) };
        (value, version)
    }

    fn store(&self, key: &str, value: &[u8], version: Version) -> Result<(), Conflict> {
        // Zero would overwrite whatever is there. A token that was never given out lets only the first of two
        // workers make a key, since the host holds tokens against keys that are there and no others.
        const NEVER_GIVEN: u32 = u32::MAX;
        let token = match version {
            Version::Absent => NEVER_GIVEN,
            Version::At(token) => token,
        };
        // SAFETY: both strings are valid for the call.
        let status = unsafe {
            abi::proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), token)
        };
        check(status).map_err(|Refused| Conflict)
    }
}

/// Answers the current stream. `details` are Envoy's `%RESPONSE_CODE_DETAILS%`.
pub fn reply(answer: &Answer, details: &str) -> Result<(), Refused> {
    let headers = serialise(&answer.headers);
    // SAFETY: all strings are valid for the call.
    check(unsafe {
        abi::proxy_send_local_response(
            answer.http,
            details.as_ptr(),
            details.len(),
            answer.body.as_ptr(),
            answer.body.len(),
            headers.as_ptr(),
            headers.len(),
            answer.grpc as i32,
        )
    })
}

/// Makes `context` the stream that the following calls are about. It fails when the stream is gone.
pub fn enter(context: u32) -> Result<(), Refused> {
    // SAFETY: takes no pointer.
    check(unsafe { abi::proxy_set_effective_context(context) })
}

/// Lets the held request of the current stream go on.
pub fn resume_request() -> Result<(), Refused> {
    const REQUEST: u32 = 0;
    // SAFETY: takes no pointer.
    check(unsafe { abi::proxy_continue_stream(REQUEST) })
}

pub fn define_metric(kind: MetricKind, name: &str) -> Option<u32> {
    let mut id = 0;
    // SAFETY: the string is valid for the call and the host writes one u32.
    let status = unsafe { abi::proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &raw mut id) };
    check(status).ok().map(|()| id)
}

/// Adds to a counter or a gauge. The host refuses an offset of zero.
pub fn increment_metric(id: u32, offset: i64) {
    // SAFETY: takes no pointer.
    _ = unsafe { abi::proxy_increment_metric(id, offset) };
}

/// Sets a gauge, or adds a value to a histogram.
pub fn record_metric(id: u32, value: u64) {
    // SAFETY: takes no pointer.
    _ = unsafe { abi::proxy_record_metric(id, value) };
}
