//! Copies of requests for a server whose answers nobody waits for.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use bytes::Bytes;
use model_server::client::{Asked, Client, predict_content_request, predict_request};
use model_server::{Code, Fault, Outcome, Place, Rpc, Server, ServerConfig};
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::wait::{DEADLINE, until};
use predictgate_e2e::{Pools, Scenario};
use prost::Message as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

use super::native::{Caller, Native};
use super::relay::Relay;
use super::stage::{BY_V1, Stage, X};

const USER: &str = "x-user-id";
const MIRROR: &str = "tfs-v2-mirror";

/// Everybody goes to stable, and a share of the copies to the mirror.
fn mirroring(percent: u32) -> impl FnOnce(&mut Value) {
    move |configuration| {
        let rollout = &mut configuration["models"][0]["routes"][4];
        assert_eq!(rollout["name"], "rollout");
        rollout["split"] = json!([{ "target": "stable" }]);
        rollout["mirror"] = json!({ "cluster": MIRROR, "percent": percent });
    }
}

/// The canary scenario with a share of copies, where a server of its own stands for the mirror.
async fn stage(percent: u32, mirror: &Server) -> Stage {
    Stage::shipped("canary", |scenario| {
        at(scenario, mirror.grpc_addr(), mirror.rest_addr()).reconfigured(mirroring(percent))
    })
    .await
}

async fn server() -> Server {
    model_server::start(ServerConfig::half_plus(&[(MODEL, &[1, 2], &[])])).await.unwrap()
}

/// Puts the mirror's cluster at other addresses than the canary's.
fn at(scenario: Scenario, grpc: SocketAddr, rest: SocketAddr) -> Scenario {
    scenario.host("mirror", grpc, rest).bootstrap(|bootstrap| {
        let cluster = cluster(bootstrap);
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] =
            json!({ "socket_address": { "address": "mirror", "port_value": 8500 } });
    })
}

fn cluster(bootstrap: &mut Value) -> &mut Value {
    let clusters = bootstrap["static_resources"]["clusters"].as_array_mut().unwrap();
    clusters.iter_mut().find(|cluster| cluster["name"] == MIRROR).unwrap()
}

/// Lets copies meet what is wrong with the mirror, as the health check would spare them that.
fn unchecked(scenario: Scenario) -> Scenario {
    scenario.bootstrap(|bootstrap| {
        cluster(bootstrap).as_object_mut().unwrap().remove("health_checks").unwrap();
    })
}

/// Calls once; whatever the mirror does, the answer is stable's.
async fn call(client: &Client, floats: usize) {
    let request = predict_content_request(MODEL, Asked::Latest, &vec![1.0; floats]);
    let reply = client.predict(&request).await.unwrap();
    assert_eq!(reply.ok().unwrap().values()[..1], [2.5]);
}

/// What Envoy has counted of the mirror.
async fn stat(stage: &Stage, name: &str) -> u64 {
    stage.envoy.admin.stat(&format!("cluster.{MIRROR}.{name}")).await.unwrap()
}

/// Waits until the mirror has executed so many copies.
async fn executed(mirror: &Server, copies: u64) {
    mirror.until(DEADLINE, |mirror| mirror.counts().total() == copies).await.unwrap();
}

/// Numbers in a message: one that fits a frame, one above a window of HTTP/2, and one above the buffer of a connection.
const SIZES: [usize; 3] = [3, 100_000, 1_000_000];

#[tokio::test]
async fn a_user_is_mirrored_always_or_never_and_the_share_is_kept() {
    const USERS: u32 = 400;
    let mirror = server().await;
    let stage = stage(30, &mirror).await;
    let native = Native::of(stage.envoy.plugin());
    let client = stage.client().await;
    let mut expected = BTreeSet::new();
    for user in 0..USERS {
        let user = format!("user-{user}");
        let client = client.clone().with_metadata(USER, &user);
        for _ in 0..2 {
            call(&client, 3).await;
        }
        if native.chosen(&Caller::with_header(USER, &user)).is_mirrored {
            expected.insert(user.into_bytes());
        }
    }
    executed(&mirror, 2 * expected.len() as u64).await;
    let received = mirror.received();
    let copies = received.iter().filter(|it| it.rpc == Some(Rpc::Predict));
    let mirrored: BTreeSet<_> = copies.map(|it| it.header(USER).unwrap().to_vec()).collect();
    assert_eq!(mirrored, expected);
    // 400 throws at 0.3 have a standard deviation of 9.2; five of them are 46.
    assert!(expected.len().abs_diff(120) <= 46, "{} of {USERS} users", expected.len());
}

#[tokio::test]
async fn without_a_key_chance_takes_the_sample() {
    const CALLS: u64 = 400;
    let mirror = server().await;
    let stage = stage(30, &mirror).await;
    let client = stage.client().await;
    for _ in 0..CALLS {
        call(&client, 3).await;
    }
    // Whatever was sent comes before this: a call that is mirrored for sure, on the same connection to the mirror.
    let native = Native::of(stage.envoy.plugin());
    let users = (0..).map(|user| format!("user-{user}"));
    let mut users = users.filter(|user| native.chosen(&Caller::with_header(USER, user)).is_mirrored);
    let last = users.next().unwrap();
    call(&client.with_metadata(USER, &last), 3).await;
    let came = |mirror: &Server| mirror.received().iter().any(|it| it.header(USER) == Some(last.as_bytes()));
    mirror.until(DEADLINE, came).await.unwrap();
    let copies = mirror.counts().begun.of(Rpc::Predict) - 1;
    assert!(copies.abs_diff(120) <= 46, "{copies} of {CALLS} calls");
}

#[tokio::test]
async fn a_copy_is_the_whole_request_and_counts_once() {
    let mirror = server().await;
    let stage = stage(100, &mirror).await;
    let client = stage.client().await;
    for (floats, copies) in SIZES.into_iter().zip(1..) {
        call(&client, floats).await;
        executed(&mirror, copies).await;
        let request = predict_content_request(MODEL, Asked::Latest, &vec![1.0; floats]);
        let received = mirror.received();
        let copy = received.iter().rfind(|it| it.rpc == Some(Rpc::Predict)).unwrap();
        assert_eq!(copy.sha256.unwrap()[..], Sha256::digest(request.encode_to_vec())[..]);
        assert_eq!(copy.header("x-predictgate-target"), Some(&b"stable"[..]));
        let host = String::from_utf8_lossy(copy.header(":authority").unwrap()).into_owned();
        assert!(host.contains("-shadow"), "{host}");
    }
    assert_eq!(stage.executed(), (3, 0));
    stage.wait_for_metric("predictgate_requests", &[], 3.0).await;
}

#[tokio::test]
async fn copies_spend_no_tokens_and_what_is_refused_is_not_copied() {
    let mirror = server().await;
    let stage = Stage::shipped("canary", |scenario| {
        at(scenario, mirror.grpc_addr(), mirror.rest_addr()).reconfigured(|configuration| {
            mirroring(100)(configuration);
            let bucket = json!({ "max_tokens": 3, "tokens_per_fill": 1, "fill_interval": "1h" });
            configuration["models"][0]["rate_limits"] = json!([{ "name": "three", "token_bucket": bucket }]);
        })
    })
    .await;
    let client = stage.client().await;
    for _ in 0..3 {
        call(&client, 3).await;
    }
    let reply = client.predict(&predict_request(MODEL, Asked::Latest, &X)).await.unwrap();
    assert_eq!(reply.code(), Code::ResourceExhausted);
    executed(&mirror, 3).await;
    assert_eq!(stat(&stage, "upstream_rq_total").await, 3);
    assert_eq!(stage.executed(), (3, 0));
}

#[tokio::test]
async fn failures_of_the_mirror_change_nothing_for_callers() {
    let mirror = server().await;
    let stage = Stage::shipped("canary", |scenario| {
        unchecked(at(scenario, mirror.grpc_addr(), mirror.rest_addr())).reconfigured(mirroring(100))
    })
    .await;
    let client = stage.client().await;
    let faults = [
        Fault::fail(1.0, Code::Unavailable, Place::TrailersOnly),
        Fault::fail(1.0, Code::Internal, Place::AfterHeaders),
        Fault::reset(),
    ];
    for fault in faults {
        mirror.set_fault(MODEL, 2, Some(fault));
        let before = mirror.counts().faults(MODEL, 2);
        for floats in SIZES {
            call(&client, floats).await;
        }
        mirror.until(DEADLINE, |mirror| mirror.counts().faults(MODEL, 2) == before + 3).await.unwrap();
    }
    mirror.refuse(true).await.unwrap();
    for floats in SIZES {
        call(&client, floats).await;
    }
    until("a copy to find nobody", || async {
        Ok((0 < stat(&stage, "upstream_cx_connect_fail").await).then_some(()))
    })
    .await
    .unwrap();
    stage.assert_alive().await;
}

#[tokio::test]
async fn callers_are_answered_while_the_mirror_has_not_begun_to_answer() {
    let mirror = server().await;
    let stage = stage(100, &mirror).await;
    let client = stage.client().await;
    mirror.set_fault(MODEL, 2, Some(Fault::hang()));
    for (floats, copies) in SIZES.into_iter().zip(1..) {
        call(&client, floats).await;
        mirror.until(DEADLINE, |mirror| mirror.counts().arrived.of(Rpc::Predict) == copies).await.unwrap();
        // The caller has its answer and the copy has none, which Envoy bears for 5 s.
        let received = mirror.received();
        let copy = received.iter().rfind(|it| it.rpc == Some(Rpc::Predict)).unwrap();
        assert_eq!(copy.outcome, Outcome::Open);
    }
    until("the end of all copies", || async {
        Ok((stat(&stage, "upstream_rq_max_duration_reached").await == 3).then_some(()))
    })
    .await
    .unwrap();
}

/// Calls with 8 messages of 2 MB, the most copies at once that the circuit breaker allows, and asserts that the mirror
/// got all of them and pushed back on none.
async fn assert_no_push_back(stage: &Stage) {
    // What is sent before there is a connection has a smaller buffer.
    call(&stage.client().await, 3).await;
    until("a connection to the mirror", || async {
        Ok((stat(stage, "upstream_cx_active").await == 1).then_some(()))
    })
    .await
    .unwrap();
    let calls: Vec<_> = (1..8)
        .map(|_| {
            let addr = stage.envoy.addr;
            tokio::spawn(async move { call(&Client::connect(addr).await.unwrap(), 500_000).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(stat(stage, "upstream_flow_control_backed_up_total").await, 0);
    assert_eq!(stat(stage, "upstream_rq_total").await, 8);
}

#[tokio::test]
async fn a_mirror_that_reads_nothing_does_not_push_back_on_callers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap();
    let stage = Stage::shipped("canary", |scenario| {
        unchecked(at(scenario, silent, silent)).reconfigured(mirroring(100))
    })
    .await;
    assert_no_push_back(&stage).await;
    drop(listener);
}

#[tokio::test]
async fn a_mirror_that_invites_data_and_then_reads_nothing_does_not_push_back_either() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let frozen = listener.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        let mut connections = Vec::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut server = h2::server::Builder::new();
            server.initial_window_size(64 << 20).initial_connection_window_size(512 << 20);
            let mut connection = server.handshake::<_, Bytes>(stream).await.unwrap();
            // It reads until the first request has come, and nothing more.
            let request = connection.accept().await;
            connections.push((connection, request));
        }
    });
    let stage = Stage::shipped("canary", |scenario| {
        unchecked(at(scenario, frozen, frozen)).reconfigured(mirroring(100))
    })
    .await;
    assert_no_push_back(&stage).await;
    accepting.abort();
}

#[tokio::test]
async fn a_mirror_that_cannot_be_reached_gets_no_copies() {
    // Nobody takes connections here and the queue of those who wait is full, so more are met by silence.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let black_hole = listener.local_addr().unwrap();
    let first = TcpStream::connect(black_hole).await.unwrap();
    let pools = Pools::start().await.unwrap();
    let scenario = at(pools.shipped("canary").unwrap(), black_hole, black_hole).bootstrap(|bootstrap| {
        // Envoy does not begin to serve before the first check has ended.
        cluster(bootstrap)["health_checks"][0]["timeout"] = json!("0.1s");
    });
    let envoy = scenario.reconfigured(mirroring(100)).unwrap().start().await.unwrap();
    envoy.wait_for_healthy("tfs-v1").await.unwrap();
    let stage = Stage { pools, envoy };
    let client = stage.client().await;
    for floats in SIZES {
        call(&client, floats).await;
    }
    assert_eq!(stat(&stage, "upstream_rq_total").await, 0);
    assert!(3 <= stat(&stage, "upstream_cx_none_healthy").await);
    drop((listener, first));
}

#[tokio::test]
async fn a_caller_cannot_have_its_request_mirrored() {
    let mirror = server().await;
    for disabled in [false, true] {
        let stage = Stage::shipped("canary", |scenario| {
            let scenario =
                at(scenario, mirror.grpc_addr(), mirror.rest_addr()).connection_manager(|manager| {
                    // Every route mirrors, so that the header is all that it takes.
                    for route in manager["route_config"]["virtual_hosts"][0]["routes"].as_array_mut().unwrap()
                    {
                        route["route"]["request_mirror_policies"] =
                            json!([{ "cluster_header": "x-predictgate-mirror-cluster" }]);
                    }
                });
            let scenario = scenario.reconfigured(mirroring(0))?;
            Ok(if disabled { scenario.with_the_filter_disabled() } else { scenario })
        })
        .await;
        let spoofing = stage.client().await.with_metadata("x-predictgate-mirror-cluster", MIRROR);
        for client in [spoofing.clone(), spoofing.with_metadata("x-predictgate-mirror-cluster", MIRROR)] {
            call(&client, 3).await;
        }
        assert_eq!(stat(&stage, "upstream_rq_total").await, 0);
        assert_eq!(stage.executed(), (2, 0));
    }
    assert_eq!(mirror.counts().begun.of(Rpc::Predict), 0);
}

#[tokio::test]
async fn a_copy_that_comes_back_is_served_and_not_mirrored_again() {
    const CALLS: u64 = 20;
    let (tell, told) = watch::channel(None);
    let loops = Relay::later(told).await;
    let stage = Stage::shipped("canary", |scenario| {
        let scenario = unchecked(at(scenario, loops.addr, loops.addr)).bootstrap(|bootstrap| {
            // No copy is to be missing because others are under way.
            cluster(bootstrap).as_object_mut().unwrap().remove("circuit_breakers").unwrap();
        });
        scenario.reconfigured(mirroring(100))
    })
    .await;
    tell.send(Some(stage.envoy.addr)).unwrap();
    let client = stage.client().await;
    for _ in 0..CALLS {
        let reply = client.predict(&predict_request(MODEL, Asked::Latest, &X)).await.unwrap();
        assert_eq!(reply.ok().unwrap().values(), BY_V1);
    }
    // A copy of a copy would be sent before the copy is answered, hence before its entry in the access log.
    until("an entry for every call and every copy", || async {
        Ok((2 * CALLS as usize <= stage.envoy.access_log()?.len()).then_some(()))
    })
    .await
    .unwrap();
    let copies = stat(&stage, "upstream_rq_total").await;
    assert_eq!(copies, CALLS);
    assert_eq!(stage.executed(), (2 * CALLS, 0));
}
