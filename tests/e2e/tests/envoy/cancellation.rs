//! Callers that leave, at whatever point of their request: nothing of it stays.

use bytes::Bytes;
use model_server::framing::frame;
use model_server::{Fault, Outcome, Rpc, Server};
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::wait::{DEADLINE, until};

use super::stage::Stage;
use super::wire::{ALIAS, GRPC, alias, input, last, numbers, spec, until_it_has};

/// How a caller leaves.
#[derive(Clone, Copy, Debug)]
enum Leaving {
    Reset,
    Disconnect,
}

/// How far the request has come by then.
#[derive(Clone, Copy, Debug)]
enum Phase {
    BeforeTheBody,
    InThePrefix,
    InsideTheModelSpec,
    InsideTheTensor,
    BeforeTheAnswer,
}

impl Phase {
    const ALL: [Self; 5] = [
        Self::BeforeTheBody,
        Self::InThePrefix,
        Self::InsideTheModelSpec,
        Self::InsideTheTensor,
        Self::BeforeTheAnswer,
    ];

    fn sent(self, body: &Bytes) -> Bytes {
        match self {
            Self::BeforeTheBody => Bytes::new(),
            Self::InThePrefix => body.slice(..3),
            Self::InsideTheModelSpec => body.slice(..10),
            Self::InsideTheTensor => body.slice(..body.len() / 2),
            Self::BeforeTheAnswer => body.clone(),
        }
    }
}

/// Bytes that Envoy has read from callers.
async fn read_by_envoy(stage: &Stage) -> u64 {
    stage.envoy.admin.stat("http.models.downstream_cx_rx_bytes_total").await.unwrap()
}

async fn check(stage: &Stage, body: &Bytes, server: &Server, phase: Phase, leaving: Leaving) {
    let (begun, executed) = (server.counts().begun.of(Rpc::Predict), stage.executed());
    let raw = stage.raw().await;
    let mut stream = raw.open(raw.post(Rpc::Predict.path(), &GRPC).unwrap(), false).await.unwrap();
    // What comes first is in Envoy before anything else is sent.
    stage.wait_for_metric("predictgate_held", &[], 1.0).await;
    let (before, sent) = (read_by_envoy(stage).await, phase.sent(body));
    match phase {
        Phase::BeforeTheBody => {}
        Phase::InThePrefix | Phase::InsideTheModelSpec => {
            stream.send(sent.clone()).await.unwrap();
            until("Envoy to read what was sent", || async {
                Ok((before + sent.len() as u64 <= read_by_envoy(stage).await).then_some(()))
            })
            .await
            .unwrap();
            stage.wait_for_metric("predictgate_held", &[], 1.0).await;
        }
        Phase::InsideTheTensor => {
            stream.send(sent.clone()).await.unwrap();
            until_it_has(server, sent.len() / 2).await;
        }
        Phase::BeforeTheAnswer => {
            let arrived = server.counts().arrived.of(Rpc::Predict);
            stream.send_last(sent).unwrap();
            server.until(DEADLINE, |it| it.counts().arrived.of(Rpc::Predict) == arrived + 1).await.unwrap();
        }
    }
    match leaving {
        Leaving::Reset => stream.reset(h2::Reason::CANCEL),
        Leaving::Disconnect => drop((stream, raw)),
    }
    stage.wait_for_metric("predictgate_held", &[], 0.0).await;
    match phase {
        Phase::BeforeTheBody | Phase::InThePrefix | Phase::InsideTheModelSpec => {
            assert_eq!(server.counts().begun.of(Rpc::Predict), begun);
        }
        Phase::InsideTheTensor | Phase::BeforeTheAnswer => {
            server.until(DEADLINE, |it| last(it).outcome == Outcome::Cancelled).await.unwrap();
            assert_eq!(server.counts().begun.of(Rpc::Predict), begun + 1);
        }
    }
    assert_eq!(stage.executed(), executed);
}

/// A caller leaves in every phase, both ways, and each time the next request is answered.
async fn check_all(stage: &Stage, model: &str, version: u8, server: &Server) {
    stage.assert_alive().await;
    let body = frame(&[spec(model, Some(version)), input(&numbers(50_000))].concat());
    for leaving in [Leaving::Reset, Leaving::Disconnect] {
        for phase in Phase::ALL {
            eprintln!("{leaving:?}, {phase:?}");
            for version in [1, 2] {
                server.set_fault(MODEL, version, Some(Fault::hang()));
            }
            check(stage, &body, server, phase, leaving).await;
            for version in [1, 2] {
                server.set_fault(MODEL, version, None);
            }
            stage.assert_alive().await;
        }
    }
}

#[tokio::test]
async fn a_caller_that_leaves_in_any_phase_leaves_nothing_behind() {
    let stage = Stage::quickstart().await;
    check_all(&stage, MODEL, 1, &stage.pools.v1).await;
}

#[tokio::test]
async fn a_caller_whose_request_is_rewritten_leaves_nothing_behind_either() {
    let stage = Stage::configured(alias).await;
    check_all(&stage, ALIAS, 1, &stage.pools.v2).await;
}
