//! A worker thread of Envoy: one VM, with the root context of every configuration it still serves.

use std::cell::{Ref, RefCell, RefMut};
use std::rc::Rc;

use crate::context::{RootContext, StreamContext};
use crate::module::Module;
use crate::process::{Process, Refused};
use crate::stream::Stream;
use crate::vm::{Called, Vm};

/// A VM that is dropped after a trap that no test looked at (see [`Worker::trap`]) fails the test.
pub struct Worker {
    vm: Rc<RefCell<Vm>>,
    process: Process,
    /// The newest last.
    roots: Vec<u32>,
    trap_seen: std::cell::Cell<bool>,
}

impl Worker {
    pub(crate) fn start(module: &Module, process: &Process, configuration: &[u8]) -> Result<Self, Refused> {
        let vm = Vm::new(module, Rc::clone(&process.shared)).expect("a module that Envoy can load");
        let vm = Rc::new(RefCell::new(vm));
        let mut worker =
            Self { vm, process: process.clone(), roots: Vec::new(), trap_seen: std::cell::Cell::new(false) };
        worker.configure(configuration, true)?;
        Ok(worker)
    }

    /// Adds a root context of another configuration to this VM, as a configuration update does: new streams
    /// go to it, and the old root keeps its streams and its ticks until [`Worker::drain`].
    ///
    /// # Errors
    ///
    /// When the module does not accept the configuration; the old root stays the newest.
    pub fn reconfigure(&mut self, configuration: impl AsRef<[u8]>) -> Result<(), Refused> {
        self.configure(configuration.as_ref(), false)
    }

    fn configure(&mut self, configuration: &[u8], start: bool) -> Result<(), Refused> {
        let logged = self.process.shared.borrow().log.len();
        let size = u32::try_from(configuration.len()).expect("less than 4 GiB");
        let mut vm = self.vm.borrow_mut();
        let root = vm.state_mut().new_context();
        vm.state_mut().roots.insert(root, RootContext { tick_period: 0, alive: true });
        vm.call(root, "proxy_on_context_create", &[root, 0]);
        let started = !start || vm.call(root, "proxy_on_vm_start", &[root, 0]).accepted();
        vm.state_mut().configuration = Some(configuration.to_vec());
        let accepted = started && vm.call(root, "proxy_on_configure", &[root, size]).accepted();
        vm.state_mut().configuration = None;
        if accepted {
            drop(vm);
            self.roots.push(root);
            return Ok(());
        }
        vm.call(root, "proxy_on_delete", &[root]);
        vm.state_mut().roots.remove(&root);
        let trap = vm.trap.clone();
        drop(vm);
        self.trap_seen.set(true);
        let log = self.process.shared.borrow().log[logged..].iter().map(|(_, line)| line.clone()).collect();
        Err(Refused { log, trap })
    }

    /// Envoy's `allow_on_headers_stop_iteration`, on unless a test turns it off.
    pub fn knob(&self, allow_on_headers_stop_iteration: bool) {
        self.vm.borrow_mut().stop_iteration_on_headers = allow_on_headers_stop_iteration;
    }

    /// Runs the tick of every root that asked for ticks.
    pub fn tick(&self) {
        for &root in &self.roots {
            if self.tick_period(root) > 0 {
                self.vm.borrow_mut().call(root, "proxy_on_tick", &[root]);
            }
        }
    }

    /// Runs the tick of the newest root alone.
    pub fn tick_newest(&self) {
        if let Some(&root) = self.roots.last() {
            self.vm.borrow_mut().call(root, "proxy_on_tick", &[root]);
        }
    }

    /// The period of ticks that the newest root asked for, in milliseconds.
    pub fn newest_tick_period(&self) -> u32 {
        self.roots.last().map_or(0, |&root| self.tick_period(root))
    }

    fn tick_period(&self, root: u32) -> u32 {
        self.vm.borrow().state().roots.get(&root).map_or(0, |root| root.tick_period)
    }

    /// Opens a stream of the newest root.
    pub fn stream(&self) -> Stream {
        let root = *self.roots.last().expect("a worker has a root until it is dropped");
        let began = self.process.shared.borrow().monotonic;
        let mut vm = self.vm.borrow_mut();
        let id = vm.state_mut().new_context();
        let mut stream = StreamContext::new(root, began);
        stream.set_property(&["source", "address"], b"10.1.2.3:40000");
        vm.state_mut().streams.insert(id, stream);
        Stream::new(Rc::clone(&self.vm), id)
    }

    /// Ends every root but the newest: its streams are cut, then it is done and deleted.
    pub fn drain(&mut self) {
        let newest = self.roots.pop();
        for root in std::mem::take(&mut self.roots) {
            let left: Vec<u32> = {
                let vm = self.vm.borrow();
                let of_root =
                    vm.state().streams.iter().filter(|(_, stream)| stream.root == root && stream.alive);
                of_root.map(|(&id, _)| id).collect()
            };
            for id in left {
                Stream::new(Rc::clone(&self.vm), id).cut();
            }
            let mut vm = self.vm.borrow_mut();
            vm.call(root, "proxy_on_done", &[root]);
            vm.call(root, "proxy_on_delete", &[root]);
            vm.state_mut().roots.remove(&root);
        }
        self.roots.extend(newest);
    }

    /// Why the VM is dead, if it is. Whoever asks has seen it.
    pub fn trap(&self) -> Option<String> {
        self.trap_seen.set(true);
        self.vm.borrow().trap.clone()
    }

    /// The work that the module has done so far, in units that do not jitter.
    pub fn fuel(&self) -> u64 {
        self.vm.borrow().fuel_used
    }

    /// The sum of a metric over all that have these tags, once this worker has told what it counted, as it does on the
    /// tick.
    pub fn metric(&self, name: &str, tags: &[(&str, &str)]) -> i64 {
        self.tick();
        self.process.metric(name, tags)
    }

    /// The bytes of memory that the VM has taken.
    pub fn memory(&self) -> usize {
        self.vm.borrow().memory()
    }

    /// Sets what one callback may burn before it is taken for one that never returns.
    pub fn limit_fuel(&self, fuel: u64) {
        self.vm.borrow_mut().fuel_limit = fuel;
    }

    /// Calls an export of the module that is no callback, with the newest root as the context.
    pub fn call(&self, export: &str, arguments: &[u32]) -> Option<u32> {
        let root = *self.roots.last().expect("a worker has a root until it is dropped");
        match self.vm.borrow_mut().call(root, export, arguments) {
            Called::Returned { value, .. } => Some(value),
            Called::Missing | Called::Dead => None,
        }
    }

    pub fn process(&self) -> &Process {
        &self.process
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let trap = self.vm.borrow().trap.clone();
        if let Some(trap) = trap
            && !self.trap_seen.get()
            && !std::thread::panicking()
        {
            panic!("the VM trapped: {trap}");
        }
    }
}

/// Access for streams.
pub(crate) type SharedVm = Rc<RefCell<Vm>>;

pub(crate) fn context(vm: &SharedVm, id: u32) -> Ref<'_, StreamContext> {
    Ref::map(vm.borrow(), |vm| vm.state().streams.get(&id).expect("streams are kept"))
}

pub(crate) fn context_mut(vm: &SharedVm, id: u32) -> RefMut<'_, StreamContext> {
    RefMut::map(vm.borrow_mut(), |vm| vm.state_mut().streams.get_mut(&id).expect("streams are kept"))
}
