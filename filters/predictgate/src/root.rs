//! The root context: takes the configuration, and ends holds by the clock.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use predictgate::config;
use predictgate::exchange::{Exchange, Local, Origin, Sent, World};
use predictgate::health::Observation;
use predictgate::hold::{HostAbility, Place, TICK};
use predictgate::host::Host;
use predictgate::key;
use predictgate::outcome::{Code, Outcome};
use predictgate::policy::Policy;
use predictgate::store::SharedStore;
use predictgate::units::{Instant, ModelId, WallTime};
use predictgate::verdict::{Protocol, Verdict};
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{ContextType, LogLevel};

use crate::host::{self, SharedData};
use crate::http::{Http, Unconfigured};
use crate::metrics::{LimitError, Metric, Metrics, model_name, target_name};
use crate::report;

thread_local! {
    static PLUGINS: RefCell<Vec<Plugin>> = const { RefCell::new(Vec::new()) };
}

/// What outlives the roots of a plugin in this VM.
struct Plugin {
    name: Vec<u8>,
    /// The host was proven capable of holds: an update of the configuration does not unlearn it.
    capable: bool,
    /// The number of the newest root; the others only drain.
    newest: u64,
}

/// Does something with what is kept of a plugin.
fn with_plugin<T>(name: &[u8], act: impl FnOnce(&mut Plugin) -> T) -> Option<T> {
    PLUGINS.with(|plugins| {
        let mut plugins = plugins.try_borrow_mut().ok()?;
        if !plugins.iter().any(|plugin| plugin.name == name) {
            plugins.push(Plugin { name: name.to_vec(), capable: false, newest: 0 });
        }
        plugins.iter_mut().find(|plugin| plugin.name == name).map(act)
    })
}

/// One configuration in one worker. An update makes a new root beside the old one, which goes on with its streams.
#[derive(Default)]
pub struct Root {
    worker: Option<Rc<Worker>>,
}

/// What the streams of a root share.
pub struct Worker {
    plugin: Vec<u8>,
    /// The root's number among those of the plugin in this VM.
    generation: u64,
    policy: Policy,
    state: RefCell<State>,
    /// The highest wall time seen.
    wall: Cell<WallTime>,
}

struct State {
    local: Local,
    /// The requests that are held, by their places, so that the clock can end their holds.
    held: Vec<Option<Rc<RefCell<Exchange>>>>,
    /// More holds are to end than end in one tick.
    hurries: bool,
    metrics: Metrics,
    /// How many held requests the gauge has been told of.
    told_held: i64,
    /// The gauges of the models before this one are shown.
    shown: u32,
    #[cfg(feature = "decision-log")]
    decisions: crate::decision_log::DecisionLog,
}

impl Worker {
    #[inline(never)]
    fn new(plugin: Vec<u8>, policy: Policy) -> Self {
        let (capable, generation) = with_plugin(&plugin, |plugin| {
            plugin.newest = plugin.newest.wrapping_add(1);
            (plugin.capable, plugin.newest)
        })
        .unwrap_or_default();
        let [seed, secret @ ..] = host::random();
        let secret = secret.into_iter().fold(0, |all, half| all << 64 | u128::from(half));
        let created = host::now();
        let mut local = Local::new(&policy, Origin { instance: &plugin, seed, secret, created });
        if capable {
            local.holds.prove_capable();
        }
        let state = State {
            local,
            held: Vec::new(),
            hurries: false,
            metrics: Metrics::default(),
            told_held: 0,
            shown: 0,
            #[cfg(feature = "decision-log")]
            decisions: crate::decision_log::DecisionLog::default(),
        };
        Self { plugin, generation, policy, state: RefCell::new(state), wall: Cell::default() }
    }

    /// Learns what is in force before the first request, which may come before the first tick.
    #[inline(never)]
    fn catch_up(&self) {
        let Ok(mut state) = self.state.try_borrow_mut() else {
            return;
        };
        let State { local, metrics, .. } = &mut *state;
        let effects = local.health.catch_up(&SharedData, &self.policy, host::now(), self.wall_time());
        report::effects(&self.policy, metrics, effects);
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Shows the request the world, and keeps account of its hold.
    pub fn ask(
        &self,
        exchange: &Rc<RefCell<Exchange>>,
        question: impl FnOnce(&mut Exchange, &mut World<'_>) -> Verdict,
    ) -> Verdict {
        let (Ok(mut state), Ok(mut asked)) = (self.state.try_borrow_mut(), exchange.try_borrow_mut()) else {
            // The host calls one context at a time, so nothing can have borrowed them.
            return Verdict::PASS;
        };
        let state = &mut *state;
        let (host, was_held) = (state.local.holds.host(), asked.held_at());
        let mut world = World {
            policy: &self.policy,
            local: &mut state.local,
            now: host::now(),
            host: self,
            explains: log::log_enabled!(log::Level::Debug),
        };
        #[cfg(feature = "decision-log")]
        let (now, is_undecided) = (world.now, asked.decision().is_none());
        let verdict = question(&mut asked, &mut world);
        #[cfg(feature = "decision-log")]
        if is_undecided {
            state.decisions.note(now, asked.decision(), &verdict);
        }
        match (was_held, asked.held_at()) {
            (None, Some(place)) => state.keep(place, exchange),
            (Some(place), None) => state.give_up(place, exchange),
            (None, None) | (Some(_), Some(_)) => {}
        }
        if host == HostAbility::Unproven {
            match state.local.holds.host() {
                HostAbility::Unproven => {}
                HostAbility::Capable => {
                    with_plugin(&self.plugin, |plugin| plugin.capable = true);
                }
                HostAbility::Incapable => {
                    log::error!(
                        "this host runs no body callback while headers are held: set \
                         allow_on_headers_stop_iteration, or identity.grpc to \"metadata\"; \
                         from now on requests are routed by their headers alone"
                    );
                    state.metrics.add(&self.policy, Metric::HostCannotHold, 1);
                }
            }
        }
        verdict
    }

    /// The stream is over.
    pub fn end(&self, exchange: &RefCell<Exchange>) {
        let (Ok(mut state), Ok(mut asked)) = (self.state.try_borrow_mut(), exchange.try_borrow_mut()) else {
            return;
        };
        if let Some(place) = asked.held_at() {
            state.give_up(place, exchange);
        }
        asked.end(&mut state.local.holds);
    }

    /// Counts the answer of a target.
    pub fn answered(&self, sent: Sent, code: Code, outcome: Outcome) {
        let now = host::now();
        self.record(sent, outcome, now);
        let Ok(mut state) = self.state.try_borrow_mut() else {
            return;
        };
        let Sent { model, target, .. } = sent;
        state.metrics.add(&self.policy, Metric::Requests { model, target, code }, 1);
        if !sent.streams {
            let millis = now.nanos_since(sent.at) / NANOS_IN_A_MILLI;
            state.metrics.record(&self.policy, Metric::Duration { model, target }, millis);
        }
    }

    /// Takes account of what became of a request, where that is watched.
    pub fn record(&self, sent: Sent, outcome: Outcome, now: Instant) {
        let Ok(mut state) = self.state.try_borrow_mut() else {
            return;
        };
        if !sent.is_watched {
            return;
        }
        log::debug!(
            "outcome={};model={};target={}",
            outcome.name(),
            model_name(&self.policy, sent.model),
            target_name(&self.policy, sent.model, sent.target)
        );
        let State { local, metrics, .. } = &mut *state;
        let is_bad = !matches!(outcome, Outcome::Success | Outcome::Neutral);
        let caller = (is_bad && local.health.wants_caller(&self.policy, sent.model))
            .then(|| self.source_address().map(|address| key::address_hash(&address)))
            .flatten();
        let seen = Observation {
            model: sent.model,
            route: sent.route,
            target: sent.target,
            outcome,
            latency: (!sent.streams).then(|| now.since(sent.at)),
            caller,
            started: sent.at,
            probe: sent.probe,
            now,
        };
        let effects = local.health.record(&SharedData, &self.policy, &seen);
        report::effects(&self.policy, metrics, effects);
    }

    /// Hands over what was counted, since no tick comes any more.
    fn hand_over(&self) {
        if let Ok(mut state) = self.state.try_borrow_mut() {
            let State { local, metrics, .. } = &mut *state;
            let effects = local.health.end(&SharedData, &self.policy, host::now());
            report::effects(&self.policy, metrics, effects);
            let held = std::mem::take(&mut state.told_held);
            state.metrics.add(&self.policy, Metric::Held, held.saturating_neg());
            state.metrics.tell();
        }
    }

    pub fn count(&self, metric: Metric) {
        if let Ok(mut state) = self.state.try_borrow_mut() {
            state.metrics.add(&self.policy, metric, 1);
        }
    }

    fn is_newest(&self) -> bool {
        with_plugin(&self.plugin, |plugin| plugin.newest == self.generation).unwrap_or(false)
    }

    /// Ends the holds whose deadline has come, and those that made room for others.
    fn tick(&self) {
        let (expired, evicted) = {
            let Ok(mut state) = self.state.try_borrow_mut() else {
                return;
            };
            let state = &mut *state;
            let evicted = state.local.holds.take_evicted(MOST_ENDED);
            let left = MOST_ENDED.saturating_sub(evicted.len());
            let expired = state.local.holds.expire(host::now(), left);
            state.hurry(expired.len() == left);
            state.tend_limits(&self.policy);
            #[cfg(feature = "decision-log")]
            state.decisions.write(state.local.limits.conflicts());
            state.tend_health(&self.policy, self.wall_time(), self.is_newest());
            state.count_held(&self.policy);
            state.metrics.tell();
            let mut exchanges = |ended: Vec<(u32, Place)>| -> Vec<_> {
                let held = &mut state.held;
                ended
                    .into_iter()
                    .filter_map(|(id, at)| Some((id, held.get_mut(at.index())?.take()?)))
                    .collect()
            };
            (exchanges(expired), exchanges(evicted))
        };
        for (id, exchange) in expired {
            let verdict = self.ask(&exchange, Exchange::hold_expired);
            end_hold(id, &exchange, verdict);
        }
        for (id, exchange) in evicted {
            let verdict = self.ask(&exchange, |exchange, _| exchange.evicted());
            end_hold(id, &exchange, verdict);
        }
    }
}

/// The host of the current stream.
impl Host for Worker {
    fn source_address(&self) -> Option<Vec<u8>> {
        host::property(&["source", "address"])
    }

    fn peer_san(&self) -> Option<Vec<u8>> {
        let named = |name| host::property(&["connection", name]).filter(|san| !san.is_empty());
        named("uri_san_peer_certificate").or_else(|| named("dns_san_peer_certificate"))
    }

    fn jwt_claim(&self, claim: &str) -> Option<Vec<u8>> {
        host::property(&["metadata", "filter_metadata", "envoy.filters.http.jwt_authn", "payload", claim])
    }

    fn wall_time(&self) -> WallTime {
        self.wall.set(host::wall_time().max(self.wall.get()));
        self.wall.get()
    }

    fn now(&self) -> Instant {
        host::now()
    }

    fn store(&self) -> &dyn SharedStore {
        &SharedData
    }
}

const NANOS_IN_A_MILLI: u64 = 1_000_000;

/// Envoy runs all answers of one callback after it, one inside the other, as each calls the VM again. Some three
/// hundred overflow the VM's stack, which kills it, so no more holds than this end in a tick.
const MOST_ENDED: usize = 32;

/// When the next tick comes if more holds are to end.
const SOON: Duration = Duration::from_millis(1);

/// Lets a request that was held go on or answers it, unless it is gone.
#[inline(never)]
fn end_hold(id: u32, exchange: &RefCell<Exchange>, verdict: Verdict) {
    if host::enter(id).is_err() {
        return;
    }
    let done = match verdict {
        Verdict::Reply(reply) => {
            let protocol = exchange.try_borrow().map_or(Protocol::Rest, |exchange| exchange.protocol());
            host::reply(&reply.answer(protocol), reply.reason.name())
        }
        Verdict::Forward(_) | Verdict::Hold => host::resume_request(),
    };
    if done.is_err() {
        log::warn!("the host did not let a held request go on");
    }
}

impl State {
    /// Keeps a request that is held.
    fn keep(&mut self, place: Place, exchange: &Rc<RefCell<Exchange>>) {
        let places = place.index().saturating_add(1).max(self.held.len());
        self.held.resize(places, None);
        if let Some(kept) = self.held.get_mut(place.index()) {
            *kept = Some(Rc::clone(exchange));
        }
    }

    /// Lets go of a request whose hold has ended. Its place may be another's by now.
    fn give_up(&mut self, place: Place, exchange: &RefCell<Exchange>) {
        if let Some(kept) = self.held.get_mut(place.index()) {
            kept.take_if(|kept| std::ptr::eq(&raw const **kept, exchange));
        }
    }

    /// Lets the clock tick soon, or as usual.
    fn hurry(&mut self, hurries: bool) {
        if std::mem::replace(&mut self.hurries, hurries) != hurries {
            set_tick_period(if hurries { SOON } else { TICK });
        }
    }

    /// Keeps what limits have in shared data, and tells what happened on them.
    #[inline(never)]
    fn tend_limits(&mut self, policy: &Policy) {
        let Self { local, metrics, .. } = self;
        local.limits.tick(&SharedData, host::now());
        local.limits.take_counts(|limit, counts| {
            for (metric, count) in [
                (Metric::ShadowRejected(limit), counts.shadow_refused),
                (Metric::LimitShared(limit), counts.shared),
                (Metric::LimitErrors(limit, LimitError::Conflict), counts.failed),
                (Metric::LimitErrors(limit, LimitError::NoRoom), counts.alone),
            ] {
                metrics.add(policy, metric, i64::try_from(count).unwrap_or(i64::MAX));
            }
        });
    }

    /// Merges what this worker saw, learns what others did, and shows what is in force.
    #[inline(never)]
    fn tend_health(&mut self, policy: &Policy, wall: WallTime, is_newest: bool) {
        let Self { local, metrics, shown, .. } = self;
        let mut effects = local.health.tick(&SharedData, policy, host::now(), wall, is_newest);
        if is_newest {
            // Defining a gauge costs some 16 us, so a large configuration is shown over many ticks.
            const MODELS_A_TICK: u32 = 100;
            let models = u32::try_from(policy.models.len()).unwrap_or(u32::MAX);
            let until = shown.saturating_add(MODELS_A_TICK).min(models);
            for model in *shown..until {
                local.health.show(policy, ModelId(model), &mut effects);
            }
            *shown = until;
        }
        report::effects(policy, metrics, effects);
    }

    /// All workers share the gauge, so each adds what changed.
    fn count_held(&mut self, policy: &Policy) {
        let held = i64::try_from(self.local.holds.held()).unwrap_or(i64::MAX);
        let before = std::mem::replace(&mut self.told_held, held);
        self.metrics.add(policy, Metric::Held, held.saturating_sub(before));
    }
}

fn set_tick_period(period: Duration) {
    host::set_tick_period(u32::try_from(period.as_millis()).unwrap_or(u32::MAX));
}

/// Every worker logs what is wrong with a configuration; `cargo xtask check` shows all of it.
const MOST_LOGGED: usize = 100;

impl Context for Root {}

impl Drop for Root {
    fn drop(&mut self) {
        if let Some(worker) = &self.worker {
            worker.hand_over();
        }
    }
}

impl Root {
    #[inline(never)]
    fn accept(&mut self, policy: Policy, began: Instant) {
        let models = policy.models.len();
        let worker = Worker::new(host::plugin_name(), policy);
        worker.catch_up();
        self.worker = Some(Rc::new(worker));
        let took = host::now().since(began).as_millis();
        log::info!("configuration: accepted, models: {models}, read in {took} ms");
        set_tick_period(TICK);
    }
}

#[inline(never)]
fn refuse(errors: &[String]) {
    for error in errors.iter().take(MOST_LOGGED) {
        log::error!("configuration: {error}");
    }
    log::error!("configuration: refused, errors: {}", errors.len());
}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        follow_log_level();
        let began = host::now();
        let text = host::plugin_configuration();
        let accepted = match str::from_utf8(&text) {
            Ok(text) => config::parse(text)
                .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>()),
            Err(error) => Err(vec![format!("the configuration is not UTF-8: {error}")]),
        };
        match accepted {
            Ok(policy) => {
                self.accept(policy, began);
                true
            }
            Err(errors) => {
                refuse(&errors);
                false
            }
        }
    }

    fn on_tick(&mut self) {
        follow_log_level();
        if let Some(worker) = &self.worker {
            worker.tick();
        }
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(match &self.worker {
            Some(worker) => Box::new(Http::new(context_id, Rc::clone(worker))),
            None => Box::new(Unconfigured),
        })
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// An operator may change Envoy's log level at any time.
fn follow_log_level() {
    proxy_wasm::set_log_level(match host::log_level() {
        0 => LogLevel::Trace,
        1 => LogLevel::Debug,
        2 => LogLevel::Info,
        3 => LogLevel::Warn,
        4 => LogLevel::Error,
        _ => LogLevel::Critical,
    });
}
