//! What binds a caller to a target: the built filter in Envoy agrees with the library on every key.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use http::Method;
use model_server::client::{Asked, Client, predict_request, rest};
use predictgate_e2e::pools::MODEL;
use serde_json::{Value, json};

use super::certificates::{Authority, dns, uri};
use super::native::{Caller, Native};
use super::relay::Relay;
use super::stage::{BY_V1, BY_V2, Stage, X, instances};

/// Whoever asks for no version is dealt to both pools in halves, by this key.
pub fn sticky_by(by: Value) -> impl FnOnce(&mut Value) {
    move |configuration| {
        let routes = &mut configuration["models"][0]["routes"];
        assert_eq!(routes[4]["name"], "latest");
        routes[4]["split"] = json!([{ "target": "v1", "weight": 1 }, { "target": "v2", "weight": 1 }]);
        routes[4]["sticky"] = json!({ "by": by, "salt": "2026-11" });
    }
}

/// The target whose server gave these numbers.
pub fn target(values: &[f32]) -> &'static str {
    match values {
        _ if values == BY_V1 => "v1",
        _ if values == BY_V2 => "v2",
        _ => panic!("no version computes {values:?}"),
    }
}

/// The target of one call that asks for no version.
pub async fn call(client: &Client) -> &'static str {
    let reply = client.predict(&predict_request(MODEL, Asked::Latest, &X)).await.unwrap();
    target(reply.ok().unwrap().values())
}

/// The target of one REST request that asks for no version.
pub async fn post(addr: SocketAddr, headers: &[(&str, &[u8])]) -> &'static str {
    let path = "/v1/models/resnet:predict";
    let answer = rest::request(addr, Method::POST, path, headers, instances().into()).await.unwrap();
    target(&answer.values())
}

/// Asserts that chance deals out what has no key: both targets answer, neither far more often.
///
/// `targets` are those of 100 requests. A fair coin shows between 20 and 80 heads in all but one of 10^9 such rows,
/// as six standard deviations are 30.
#[track_caller]
pub fn assert_dealt_by_chance(targets: &[&str]) {
    assert_eq!(targets.len(), 100);
    let v1 = targets.iter().filter(|&&target| target == "v1").count();
    assert!((20..=80).contains(&v1), "{v1} of 100 went to v1");
}

#[tokio::test]
async fn every_value_of_a_header_counts_byte_for_byte_over_both_protocols() {
    let stage = Stage::configured(sticky_by(json!([{ "header": "x-user-id" }]))).await;
    let native = Native::of(stage.envoy.plugin());
    let client = stage.client().await;
    let mut users: Vec<Vec<Vec<u8>>> =
        (0..100).map(|user| vec![format!("user-{user}").into_bytes()]).collect();
    // What is not UTF-8, what is repeated, in either order, and what only looks repeated.
    users.extend((0x80..=0xff).step_by(9).map(|byte| vec![vec![byte, 0xfe, b'u']]));
    for (a, b) in [("a", "b"), ("b", "a"), ("c", "d"), ("d", "c"), ("e", "e")] {
        users.push(vec![a.into(), b.into()]);
        users.push(vec![format!("{a},{b}").into_bytes()]);
        users.push(vec![format!("{a}{b}").into_bytes()]);
    }
    users.push(vec![b"".to_vec()]);
    users.push(vec![vec![b'x'; 8000]]);
    let mut seen = Vec::new();
    for values in &users {
        let caller = Caller {
            headers: values.iter().map(|value| ("x-user-id".to_owned(), value.clone())).collect(),
            ..Caller::default()
        };
        let expected = native.target(&caller);
        let called = values.iter().fold(client.clone(), |it, value| it.with_metadata("x-user-id", value));
        let headers: Vec<_> = values.iter().map(|value| ("x-user-id", &value[..])).collect();
        let what = || values.iter().map(|it| it.escape_ascii().to_string()).collect::<Vec<_>>();
        assert_eq!(call(&called).await, expected, "{:?} over gRPC", what());
        assert_eq!(post(stage.envoy.addr, &headers).await, expected, "{:?} over REST", what());
        seen.push(expected);
    }
    assert!(["v1", "v2"].iter().all(|target| seen.iter().any(|it| it == target)));
    stage.assert_alive().await;
}

#[tokio::test]
async fn the_host_is_a_header_like_any_other() {
    let stage = Stage::configured(sticky_by(json!([{ "header": "Host" }]))).await;
    let mut seen = BTreeSet::new();
    for tenant in 0..10 {
        let host = format!("tenant-{tenant}.models");
        let client = stage.client().await.with_authority(&host);
        let mut targets = BTreeSet::new();
        for _ in 0..3 {
            targets.insert(call(&client).await);
            targets.insert(post(stage.envoy.addr, &[("host", host.as_bytes())]).await);
        }
        assert_eq!(targets.len(), 1, "{host}");
        seen.extend(targets);
    }
    assert_eq!(seen.len(), 2);
}

#[tokio::test]
async fn without_a_key_chance_decides() {
    let stage = Stage::configured(sticky_by(json!([{ "header": "x-user-id" }, "model"]))).await;
    let client = stage.client().await;
    let mut targets = Vec::new();
    for _ in 0..100 {
        targets.push(call(&client).await);
    }
    assert_dealt_by_chance(&targets);
}

#[tokio::test]
async fn one_part_of_a_key_is_enough_to_bind() {
    let by = json!([{ "header": "x-user-id" }, { "header": "x-device" }, "model", "version", "method"]);
    let stage = Stage::configured(sticky_by(by)).await;
    let native = Native::of(stage.envoy.plugin());
    for device in 0..20 {
        let value = format!("device-{device}");
        let expected = native.target(&Caller::with_header("x-device", &value));
        for _ in 0..3 {
            assert_eq!(post(stage.envoy.addr, &[("x-device", value.as_bytes())]).await, expected, "{value}");
        }
    }
}

#[tokio::test]
async fn an_address_is_bound_whatever_its_port() {
    let stage = Stage::configured(sticky_by(json!(["source_ip"]))).await;
    let native = Native::of(stage.envoy.plugin());
    let mut seen = Vec::new();
    for host in 1..=20 {
        let source = IpAddr::V4(Ipv4Addr::new(127, 0, 7, host));
        let caller = Caller { address: Some(format!("{source}:1")), ..Caller::default() };
        let relay = Relay::from_address(source, stage.envoy.addr).await;
        for _ in 0..4 {
            assert_eq!(call(&Client::connect(relay.addr).await.unwrap()).await, native.target(&caller));
        }
        seen.push(native.target(&caller));
    }
    assert!(["v1", "v2"].iter().all(|target| seen.iter().any(|it| it == target)));
}

#[tokio::test]
async fn an_address_of_ip_version_6_is_bound_too() {
    if let Err(error) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
        eprintln!("skipped, since this machine has no ::1: {error}");
        return;
    }
    let stage = Stage::with(|scenario| {
        let address = json!({ "socket_address": { "address": "::1", "port_value": 0 } });
        let scenario = scenario.bootstrap(|bootstrap| {
            bootstrap["static_resources"]["listeners"][0]["additional_addresses"] =
                json!([{ "address": address }]);
        });
        scenario.reconfigured(sticky_by(json!(["source_ip"])))
    });
    let stage = stage.await;
    let listeners = stage.envoy.admin.json("/listeners?format=json").await.unwrap();
    let address = &listeners["listener_statuses"][0]["additional_local_addresses"][0]["socket_address"];
    let port = u16::try_from(address["port_value"].as_u64().unwrap()).unwrap();
    let envoy = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port);
    let caller = Caller { address: Some("[::1]:1".to_owned()), ..Caller::default() };
    let expected = Native::of(stage.envoy.plugin()).target(&caller);
    // A caller that chance dealt would be elsewhere in one of 2^20 rows at the least.
    for _ in 0..20 {
        assert_eq!(post(envoy, &[]).await, expected);
    }
}

#[tokio::test]
async fn what_a_stranger_says_of_its_address_counts_nothing() {
    let stage = Stage::configured(sticky_by(json!(["source_ip"]))).await;
    let caller = Caller { address: Some("127.0.0.1:1".to_owned()), ..Caller::default() };
    let expected = Native::of(stage.envoy.plugin()).target(&caller);
    for host in 1..=20 {
        let forwarded = format!("203.0.113.{host}");
        assert_eq!(post(stage.envoy.addr, &[("x-forwarded-for", forwarded.as_bytes())]).await, expected);
    }
}

#[tokio::test]
async fn behind_a_trusted_hop_the_address_that_it_saw_counts() {
    let stage = Stage::with(|scenario| {
        scenario
            .connection_manager(|manager| manager["xff_num_trusted_hops"] = json!(1))
            .reconfigured(sticky_by(json!(["source_ip"])))
    });
    let stage = stage.await;
    let native = Native::of(stage.envoy.plugin());
    let addresses = (1..=15).map(|host| format!("203.0.113.{host}"));
    for address in addresses.chain((1..=15).map(|host| format!("2001:db8::{host:x}"))) {
        let with_port = if address.contains(':') { format!("[{address}]:7") } else { format!("{address}:7") };
        let caller = Caller { address: Some(with_port), ..Caller::default() };
        // What stands before it the caller may have made up.
        for made_up in ["", "198.51.100.1, ", "198.51.100.2, 198.51.100.3, "] {
            let forwarded = format!("{made_up}{address}");
            let target = post(stage.envoy.addr, &[("x-forwarded-for", forwarded.as_bytes())]).await;
            assert_eq!(target, native.target(&caller), "{forwarded}");
        }
    }
}

#[tokio::test]
async fn a_certificate_binds_by_its_first_uri_or_else_its_first_dns_name() {
    let authority = Authority::new();
    let stage = Stage::with(|scenario| {
        let scenario = scenario.bootstrap(|bootstrap| authority.guard(bootstrap));
        scenario.reconfigured(sticky_by(json!(["peer_san"])))
    });
    let stage = stage.await;
    let native = Native::of(stage.envoy.plugin());
    let mut seen = Vec::new();
    for n in 0..5 {
        let (spiffe, name) = (format!("spiffe://lab/client-{n}"), format!("client-{n}.lab"));
        let cases = [
            (vec![dns(&name), uri(&spiffe), uri("spiffe://lab/second")], &spiffe),
            (vec![dns(&name), dns("second.lab")], &name),
        ];
        for (names, san) in cases {
            let caller = Caller { peer_san: Some(san.clone()), ..Caller::default() };
            // Another certificate with the same name is the same caller.
            for _ in 0..2 {
                let relay = Relay::over_tls(authority.caller(names.clone()), stage.envoy.addr).await;
                let client = Client::connect(relay.addr).await.unwrap();
                for _ in 0..2 {
                    assert_eq!(call(&client).await, native.target(&caller), "{san}");
                }
            }
            seen.push(native.target(&caller));
        }
    }
    assert!(["v1", "v2"].iter().all(|target| seen.iter().any(|it| it == target)));

    let executed = stage.executed();
    let impostor = authority.impostor(vec![uri("spiffe://lab/client-0")]);
    let relay = Relay::over_tls(impostor, stage.envoy.addr).await;
    // Envoy cuts the connection, sooner or later than the caller begins to use it.
    let reached = async {
        let client = Client::connect(relay.addr).await?;
        client.predict(&predict_request(MODEL, Asked::Latest, &X)).await
    };
    reached.await.unwrap_err();
    assert_eq!(stage.executed(), executed);

    for unnamed in [authority.stranger(), authority.caller(Vec::new())] {
        let relay = Relay::over_tls(unnamed, stage.envoy.addr).await;
        let client = Client::connect(relay.addr).await.unwrap();
        let mut targets = Vec::new();
        for _ in 0..100 {
            targets.push(call(&client).await);
        }
        assert_dealt_by_chance(&targets);
    }
}

#[tokio::test]
async fn a_certificate_that_nobody_has_verified_binds_nobody() {
    let authority = Authority::new();
    let stage = Stage::with(|scenario| {
        let scenario = scenario.bootstrap(|bootstrap| {
            authority.guard(bootstrap);
            let chain = &mut bootstrap["static_resources"]["listeners"][0]["filter_chains"][0];
            let tls = &mut chain["transport_socket"]["typed_config"];
            // Envoy wants a certificate, and takes any.
            tls["require_client_certificate"] = json!(true);
            tls["common_tls_context"].as_object_mut().unwrap().remove("validation_context").unwrap();
        });
        scenario.reconfigured(sticky_by(json!(["peer_san"])))
    });
    let stage = stage.await;
    let impostor = authority.impostor(vec![uri("spiffe://lab/client-0")]);
    let relay = Relay::over_tls(impostor, stage.envoy.addr).await;
    let client = Client::connect(relay.addr).await.unwrap();
    let mut targets = Vec::new();
    for _ in 0..100 {
        targets.push(call(&client).await);
    }
    assert_dealt_by_chance(&targets);
}
