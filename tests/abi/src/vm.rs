//! One VM: an instance of the module, and the way calls go into it.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use anyhow::Result;
use wasmtime::{Extern, Instance, Linker, Memory, Store, TypedFunc, Val};

use crate::context::{Reply, RootContext, Stage, StreamContext};
use crate::flow::{Due, Flow, Verdict};
use crate::imports;
use crate::map::Map;
use crate::metrics::Kind;
use crate::module::Module;
use crate::process::Shared;

/// Far more than any callback needs; what burns it has stopped making progress.
const FUEL: u64 = 20_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Request,
    Response,
}

impl Direction {
    const fn headers(self) -> &'static str {
        match self {
            Self::Request => "proxy_on_request_headers",
            Self::Response => "proxy_on_response_headers",
        }
    }

    const fn body(self) -> &'static str {
        match self {
            Self::Request => "proxy_on_request_body",
            Self::Response => "proxy_on_response_body",
        }
    }

    const fn trailers(self) -> &'static str {
        match self {
            Self::Request => "proxy_on_request_trailers",
            Self::Response => "proxy_on_response_trailers",
        }
    }
}

/// What Envoy defers until the module has returned, because it calls back into the module.
pub(crate) enum Deferred {
    Continue(u32, Direction),
    Reply(u32, Reply),
    Close(u32),
}

pub struct VmState {
    pub(crate) process: Rc<RefCell<Shared>>,
    pub(crate) memory: Option<Memory>,
    pub(crate) allocate: Option<TypedFunc<u32, u32>>,
    pub(crate) roots: BTreeMap<u32, RootContext>,
    pub(crate) streams: BTreeMap<u32, StreamContext>,
    /// The context whose callback runs, and the one that host calls act on instead.
    current: u32,
    pub(crate) effective: Option<u32>,
    next_context: u32,
    /// There only while `proxy_on_configure` runs.
    pub(crate) configuration: Option<Vec<u8>>,
    pub(crate) deferred: VecDeque<Deferred>,
    /// A local response stops the iteration of the callback that sent it, whichever stream it answers.
    pub(crate) stop_iteration: bool,
    pub(crate) metrics: Vec<(Kind, String)>,
}

impl VmState {
    pub(crate) fn effective_context(&self) -> u32 {
        self.effective.filter(|&id| self.exists(id)).unwrap_or(self.current)
    }

    pub(crate) fn exists(&self, id: u32) -> bool {
        let stream = self.streams.get(&id).is_some_and(|stream| stream.alive);
        stream || self.roots.get(&id).is_some_and(|root| root.alive)
    }

    pub(crate) fn new_context(&mut self) -> u32 {
        self.next_context += 1;
        self.next_context
    }

    /// The root of the context that host calls act on.
    pub(crate) fn effective_root(&mut self) -> Option<&mut RootContext> {
        let id = self.effective_context();
        let root = self.streams.get(&id).map_or(id, |stream| stream.root);
        self.roots.get_mut(&root)
    }
}

pub(crate) enum Called {
    /// The module has no such export.
    Missing,
    Returned {
        value: u32,
        stopped: bool,
    },
    /// The VM is dead, from now or from before.
    Dead,
}

impl Called {
    /// Whether the module said yes, where Envoy takes a missing export for a yes.
    pub fn accepted(&self) -> bool {
        match self {
            Self::Missing => true,
            Self::Returned { value, .. } => *value != 0,
            Self::Dead => false,
        }
    }
}

pub(crate) struct Vm {
    store: Store<VmState>,
    instance: Instance,
    pub trap: Option<String>,
    pub stop_iteration_on_headers: bool,
    pub fuel_used: u64,
    /// What one call may burn.
    pub fuel_limit: u64,
}

impl Vm {
    /// # Errors
    ///
    /// When the module imports what Envoy does not have, or is not a module of ABI 0.2.1.
    pub fn new(module: &Module, process: Rc<RefCell<Shared>>) -> Result<Self> {
        let state = VmState {
            process,
            memory: None,
            allocate: None,
            roots: BTreeMap::new(),
            streams: BTreeMap::new(),
            current: 0,
            effective: None,
            next_context: 0,
            configuration: None,
            deferred: VecDeque::new(),
            stop_iteration: false,
            metrics: Vec::new(),
        };
        let engine = module.0.engine();
        let mut store = Store::new(engine, state);
        store.set_fuel(FUEL)?;
        let mut linker = Linker::new(engine);
        imports::add(&mut linker)?;
        let instance = linker.instantiate(&mut store, &module.0)?;
        anyhow::ensure!(
            instance.get_func(&mut store, "proxy_abi_version_0_2_1").is_some(),
            "the module does not export proxy_abi_version_0_2_1"
        );
        let allocate = ["proxy_on_memory_allocate", "malloc"].into_iter();
        let allocate = allocate.filter_map(|name| instance.get_func(&mut store, name)).next();
        store.data_mut().allocate = allocate.map(|function| function.typed(&store)).transpose()?;
        if let Some(Extern::Memory(memory)) = instance.get_export(&mut store, "memory") {
            store.data_mut().memory = Some(memory);
        }
        let mut vm = Self {
            store,
            instance,
            trap: None,
            stop_iteration_on_headers: true,
            fuel_used: 0,
            fuel_limit: FUEL,
        };
        for start in ["_initialize", "_start"] {
            if let Called::Returned { .. } = vm.call(0, start, &[]) {
                break;
            }
        }
        Ok(vm)
    }

    pub fn state(&self) -> &VmState {
        self.store.data()
    }

    pub fn memory(&self) -> usize {
        self.state().memory.map_or(0, |memory| memory.data_size(&self.store))
    }

    pub fn state_mut(&mut self) -> &mut VmState {
        self.store.data_mut()
    }

    /// Calls into the module on behalf of a context, then does what the module asked to be done after.
    pub fn call(&mut self, context: u32, export: &str, arguments: &[u32]) -> Called {
        if self.trap.is_some() {
            return Called::Dead;
        }
        let Some(function) = self.instance.get_func(&mut self.store, export) else { return Called::Missing };
        let state = self.state_mut();
        state.current = context;
        state.effective = None;
        state.stop_iteration = false;
        let arguments: Vec<_> = arguments.iter().map(|number| Val::I32(number.cast_signed())).collect();
        let mut results = vec![Val::I32(0); function.ty(&self.store).results().len()];
        let limit = self.fuel_limit;
        self.store.set_fuel(limit).expect("fuel is on");
        let outcome = function.call(&mut self.store, &arguments, &mut results);
        self.fuel_used += limit - self.store.get_fuel().expect("fuel is on");
        let stopped = std::mem::take(&mut self.state_mut().stop_iteration);
        if let Err(trap) = outcome {
            self.trap = Some(format!("{export}: {trap:#}{}", self.last_words()));
            self.state_mut().deferred.clear();
            return Called::Dead;
        }
        let value = results.first().and_then(Val::i32).unwrap_or(0).cast_unsigned();
        self.settle();
        Called::Returned { value, stopped }
    }

    /// What the module logged last, such as the message of a panic.
    fn last_words(&self) -> String {
        let shared = self.state().process.borrow();
        shared.log.last().map(|(_, line)| format!("; last logged: {line}")).unwrap_or_default()
    }

    fn settle(&mut self) {
        while let Some(deferred) = self.state_mut().deferred.pop_front() {
            match deferred {
                Deferred::Continue(stream, direction) => {
                    let Some(flow) = self.flow(stream, direction) else { continue };
                    let due = flow.resume();
                    self.run(stream, direction, &due);
                }
                Deferred::Reply(stream, reply) => self.reply(stream, reply),
                Deferred::Close(stream) => {
                    if let Some(stream) = self.state_mut().streams.get_mut(&stream) {
                        stream.reset = true;
                        stream.request.end();
                        stream.response.end();
                    }
                }
            }
        }
    }

    fn flow(&mut self, stream: u32, direction: Direction) -> Option<&mut Flow> {
        let stream = self.state_mut().streams.get_mut(&stream).filter(|stream| stream.alive)?;
        Some(match direction {
            Direction::Request => &mut stream.request,
            Direction::Response => &mut stream.response,
        })
    }

    /// Sends the filter's own answer through the filter's own response callbacks, as Envoy does.
    fn reply(&mut self, id: u32, reply: Reply) {
        let Some(stream) = self.state_mut().streams.get_mut(&id).filter(|stream| stream.alive) else {
            return;
        };
        if stream.reply.is_some() {
            return;
        }
        stream.request.end();
        if stream.response.started() {
            // The status line is gone already: the stream can only be reset.
            stream.reset = true;
            stream.response.end();
            return;
        }
        let (headers, body) = stream.answer(&reply);
        stream.reply = Some(reply);
        let end = body.is_empty();
        self.headers(id, Direction::Response, headers, end);
        if !end {
            self.body(id, Direction::Response, &body, true);
        }
    }

    pub fn headers(&mut self, id: u32, direction: Direction, headers: Map, end: bool) -> Verdict {
        let count = u32::try_from(headers.len()).expect("few headers");
        if direction == Direction::Response
            && let Some(stream) = self.state_mut().streams.get_mut(&id)
        {
            stream.stage = Stage::Response;
            stream.note_response(&headers);
        }
        let Some(flow) = self.flow(id, direction) else { return Verdict::Ended };
        flow.begin(headers, end);
        let called = self.call(id, direction.headers(), &[id, count, end.into()]);
        let verdict = self.verdict(id, &called, |value, stop_iteration| match value {
            0 => Verdict::Continue,
            1 if stop_iteration => Verdict::Stop,
            _ => Verdict::StopAll,
        });
        self.settle_flow(id, direction, |flow| flow.after_headers(verdict));
        verdict
    }

    pub fn body(&mut self, id: u32, direction: Direction, chunk: &[u8], end: bool) -> Option<Verdict> {
        let due = self.flow(id, direction)?.chunk(chunk, end)?;
        self.run(id, direction, &[due])
    }

    pub fn trailers(&mut self, id: u32, direction: Direction, trailers: Map) -> Option<Verdict> {
        if direction == Direction::Response
            && let Some(stream) = self.state_mut().streams.get_mut(&id)
        {
            stream.note_status(&trailers);
        }
        let due = self.flow(id, direction)?.end_with(trailers)?;
        self.run(id, direction, &[due])
    }

    /// Runs callbacks that are due and says what the last one answered.
    fn run(&mut self, id: u32, direction: Direction, due: &[Due]) -> Option<Verdict> {
        let mut last = None;
        for due in due {
            if self.flow(id, direction).is_none_or(|flow| flow.ended()) {
                break;
            }
            let called = match *due {
                Due::Body { size, end } => {
                    let size = u32::try_from(size).expect("less than 4 GiB");
                    self.call(id, direction.body(), &[id, size, end.into()])
                }
                Due::Trailers => self.call(id, direction.trailers(), &[id, 0]),
            };
            let verdict = self.verdict(id, &called, |value, _| match value {
                0 => Verdict::Continue,
                1 => Verdict::Stop,
                _ => Verdict::StopAll,
            });
            self.settle_flow(id, direction, |flow| match due {
                Due::Body { .. } => flow.after_body(verdict),
                Due::Trailers => flow.after_trailers(verdict),
            });
            last = Some(verdict);
        }
        last
    }

    fn verdict(&self, id: u32, called: &Called, read: impl Fn(u32, bool) -> Verdict) -> Verdict {
        let answered =
            self.state().streams.get(&id).is_some_and(|stream| stream.reply.is_some() || stream.reset);
        match *called {
            Called::Missing => Verdict::Continue,
            Called::Dead => Verdict::Ended,
            Called::Returned { stopped: true, .. } if answered => Verdict::Ended,
            Called::Returned { stopped: true, .. } => Verdict::StopAll,
            Called::Returned { value, .. } => read(value, self.stop_iteration_on_headers),
        }
    }

    fn settle_flow(&mut self, id: u32, direction: Direction, apply: impl FnOnce(&mut Flow)) {
        if let Some(flow) = self.flow(id, direction).filter(|flow| !flow.ended()) {
            apply(flow);
        }
    }
}
