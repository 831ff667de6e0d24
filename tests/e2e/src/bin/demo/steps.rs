//! The steps of the demo.

use std::process::ExitCode;

use anyhow::Result;
use http::Method;
use model_server::client::{Asked, Client, predict_content_request, predict_request, rest};
use model_server::{Code, Rpc, hex};
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::refusal::Details;
use predictgate_e2e::wait::until;
use predictgate_e2e::{Envoy, Update};
use prost::Message;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::backend::{Backend, Kind, POOLS, Received};
use crate::plan::{self, ASKS, Ask};
use crate::report::Report;

/// How many requests each row of the table stands for.
const TIMES: u64 = 10;
const X: [f32; 3] = [1.0, 2.0, 5.0];
/// What version 1 (0.5x + 2) and version 2 (0.5x + 3) make of them.
const Y: [[f32; 3]; 2] = [[2.5, 3.0, 4.5], [3.5, 4.0, 5.5]];
const MIB: usize = 1 << 20;

pub struct Demo {
    report: Report,
    backend: Backend,
    envoy: Envoy,
    client: Client,
    configuration: Value,
    /// How many requests have been let pass with a target.
    passed: u64,
}

impl Demo {
    pub async fn start(kind: Kind) -> Result<Self> {
        let mut report = Report::new();
        report.step("Two pools of model servers, and Envoy with the filter in front");
        let backend = Backend::start(kind).await?;
        let scenario = backend.shipped("quickstart")?;
        let configuration = scenario.plugin.configuration()?;
        let envoy = scenario.start().await?;
        envoy.wait_until_healthy().await?;
        report.say(&format!("pools: {}, both with the model {MODEL}", backend.who()));
        report.say("tfs-v1: version 1, which computes 0.5x + 2; label stable");
        report.say("tfs-v2: version 2, which computes 0.5x + 3; label canary");
        report.say(&format!("Envoy: envoy/quickstart, gRPC and REST at {}", envoy.addr));
        let client = Client::connect(envoy.addr).await?;
        Ok(Self { report, backend, envoy, client, configuration, passed: 0 })
    }

    pub fn finish(self) -> ExitCode {
        self.report.finish()
    }

    pub async fn routing(&mut self) -> Result<()> {
        self.report.step(&format!("Predict, {TIMES} times each, for x = {X:?}"));
        let mut rows = Vec::new();
        for ask in ASKS {
            let target = plan::target(&self.configuration, ask.asked).unwrap_or("none").to_owned();
            let pool = plan::pool(&self.configuration, &target);
            for over in ["gRPC", "REST"] {
                let before = self.backend.executed().await?;
                let mut answers = Vec::new();
                for _ in 0..TIMES {
                    answers.push(if over == "gRPC" {
                        self.by_grpc(ask).await?
                    } else {
                        self.by_rest(ask).await?
                    });
                }
                let after = self.backend.executed().await?;
                let executed = [after[0] - before[0], after[1] - before[1]];
                let mut wanted = [0, 0];
                wanted[pool] = TIMES;
                let what = format!("{} over {over}", ask.words);
                let right = self.report.holds(&format!("{what}: executed"), &executed, &wanted)
                    & self.report.holds(&what, &answers, &vec![Y[pool].to_vec(); answers.len()]);
                rows.push([
                    ask.words.to_owned(),
                    over.to_owned(),
                    target.clone(),
                    POOLS[pool].to_owned(),
                    answers.last().map_or(String::new(), |answer| format!("{answer:?}")),
                    executed[0].to_string(),
                    executed[1].to_string(),
                    if right { "yes" } else { "NO" }.to_owned(),
                ]);
            }
        }
        let header = [
            "asked for",
            "over",
            "target",
            "its pool",
            "answer",
            "tfs-v1 executed",
            "tfs-v2 executed",
            "as configured",
        ];
        self.report.table(header, &rows);
        Ok(())
    }

    pub async fn explanation(&mut self) -> Result<()> {
        self.report.step("Why: a request with x-predictgate-explain gets the decision back");
        let client = self.client.clone().with_metadata("x-predictgate-explain", "1");
        let reply = client.predict(&predict_request(MODEL, Asked::Label("canary"), &X)).await?;
        self.passed += 1;
        let decision = reply.header("x-predictgate-decision").unwrap_or("none").to_owned();
        self.report.say(&decision);
        let target = decision.split(';').find_map(|it| it.strip_prefix("target="));
        let wanted = plan::target(&self.configuration, Asked::Label("canary"));
        self.report.check("the target of the label canary", &target, &wanted);
        Ok(())
    }

    pub async fn refusals(&mut self) -> Result<()> {
        self.report.step("What is refused, in the caller's own language, and reaches no server");
        let before = self.backend.executed().await?;
        let message = predict_request("bert", Asked::Latest, &X).encode_to_vec();
        let framed = model_server::framing::frame(&message);
        let calls = [
            ("a model that is not configured", Rpc::Predict, "application/grpc"),
            ("an administrative method", Rpc::HandleReloadConfigRequest, "application/grpc"),
            ("gRPC that calls itself JSON", Rpc::Predict, "application/json"),
        ];
        let mut rows = Vec::new();
        for (words, rpc, content_type) in calls {
            let reply = self.client.send(rpc.path(), Some(content_type), framed.clone()).await?;
            let status = match reply.status {
                Some(code) => format!("{code:?}"),
                None => format!("HTTP {}", reply.http),
            };
            let info = Details::read(&reply.details).map_or("-".to_owned(), |details| details.info.reason);
            let reason = reply.header("x-predictgate-reason").unwrap_or("-").to_owned();
            let text = match serde_json::from_slice::<Value>(&reply.body) {
                Ok(json) => json["error"].as_str().unwrap_or_default().to_owned(),
                Err(_) => reply.text,
            };
            rows.push([words.to_owned(), "gRPC".to_owned(), status, reason, info, text]);
        }
        let answer = rest::post(self.envoy.addr, "/v1/models/bert:predict", instances()).await?;
        rows.push([
            calls[0].0.to_owned(),
            "REST".to_owned(),
            format!("HTTP {}", answer.status),
            answer
                .headers
                .get("x-predictgate-reason")
                .map_or("-", |it| it.to_str().unwrap_or("-"))
                .to_owned(),
            "-".to_owned(),
            answer.error().unwrap_or_default(),
        ]);
        self.report
            .table(["request", "over", "answer", "x-predictgate-reason", "ErrorInfo", "message"], &rows);
        let found: Vec<_> = rows.iter().map(|row| (row[2].as_str(), row[3].as_str())).collect();
        let wanted = [
            ("NotFound", "model_not_configured"),
            ("PermissionDenied", "admin_method_refused"),
            ("HTTP 415", "malformed_request"),
            ("HTTP 404", "model_not_configured"),
        ];
        self.report.check("status and reason of the refusals", &found, &wanted.to_vec());
        self.report.check("executed by the servers", &self.backend.executed().await?, &before);
        Ok(())
    }

    pub async fn spoofing(&mut self) -> Result<()> {
        self.report.step("A caller asks for version 1 and claims the other pool by header");
        let before = self.backend.executed().await?;
        let client = self
            .client
            .clone()
            .with_metadata("x-predictgate-cluster", "tfs-v2")
            .with_metadata("x-predictgate-target", "v2")
            .with_metadata("x-model-pool", "v2");
        let reply = client.predict(&predict_request(MODEL, Asked::Version(1), &X)).await?;
        self.passed += 1;
        let headers: [(&str, &[u8]); 2] = [("x-predictgate-cluster", b"tfs-v2"), ("x-model-pool", b"v2")];
        let path = ASKS[0].path;
        let answer = rest::request(self.envoy.addr, Method::POST, path, &headers, instances().into()).await?;
        self.passed += 1;
        self.report.check("the answer over gRPC", &reply.ok()?.values().to_vec(), &Y[0].to_vec());
        self.report.check("the answer over REST", &answer.values(), &Y[0].to_vec());
        let after = self.backend.executed().await?;
        self.report.check("executed by tfs-v1, tfs-v2", &after, &[before[0] + 2, before[1]]);
        Ok(())
    }

    pub async fn large_tensor(&mut self) -> Result<()> {
        self.report.step("A tensor of 4 MiB passes unchanged");
        let x: Vec<f32> = (0..u16::MAX).cycle().take(MIB).map(f32::from).collect();
        let request = predict_content_request(MODEL, Asked::Version(1), &x);
        let content: Vec<u8> = x.iter().flat_map(|it| it.to_le_bytes()).collect();
        let reply = self.client.predict(&request).await?.ok()?;
        self.passed += 1;
        self.report.check("values in the answer", &reply.values().len(), &MIB);
        let (what, found, sent) = match self.backend.last_received().await? {
            Received::Message(found) => ("message", found, request.encode_to_vec()),
            Received::Tensor(found) => ("tensor", found, content),
        };
        let sent = hex(&Sha256::digest(&sent));
        self.report.check(&format!("SHA-256 of the {what} at tfs-v1, {}...", &sent[..16]), &found, &sent);
        Ok(())
    }

    pub async fn bad_update(&mut self) -> Result<()> {
        self.report.step("A bad configuration while Envoy serves");
        let mut bad = self.configuration.clone();
        bad["models"][0]["routes"][1]["split"][0]["target"] = json!("v3");
        bad["unmached"] = json!("reject");
        let update = self.envoy.configure(&bad.to_string()).await?;
        self.report.check("Envoy judges it", &update, &Update::Rejected);
        let log = self.envoy.log();
        let errors: Vec<_> =
            log.lines().filter_map(|line| line.split_once("wasm log predictgate: ")).collect();
        for (_, error) in &errors {
            self.report.say(error);
        }
        let named = ["models[0].routes[1].split[0].target", "unmached"]
            .map(|path| errors.iter().any(|(_, error)| error.contains(path)));
        self.report.check("both mistakes are told with their paths", &named, &[true, true]);
        let answer = self.by_grpc(ASKS[1]).await?;
        self.report.check("the old configuration answers for version 2", &answer, &Y[1].to_vec());
        Ok(())
    }

    pub async fn good_update(&mut self) -> Result<()> {
        self.report.step("A good configuration while Envoy serves: latest goes to version 2");
        let mut good = self.configuration.clone();
        let routes = good["models"][0]["routes"].as_array_mut();
        if let Some(last) = routes.and_then(|routes| routes.last_mut()) {
            last["split"][0]["target"] = json!("v2");
        }
        let update = self.envoy.configure(&good.to_string()).await?;
        self.report.check("Envoy judges it", &update, &Update::Accepted);
        // Envoy counts before it tells the workers.
        let (client, passed) = (&self.client, std::cell::Cell::new(0));
        let request = predict_request(MODEL, Asked::Latest, &X);
        until("an answer of version 2 on the open connection", || async {
            passed.set(passed.get() + 1);
            Ok((client.predict(&request).await?.ok()?.values() == Y[1]).then_some(()))
        })
        .await?;
        self.passed += passed.get();
        self.report.ok("latest is answered by version 2, on the connection that was open before");
        Ok(())
    }

    pub async fn metrics(&mut self) -> Result<()> {
        self.report.step("What Prometheus reads");
        // A request is counted when it is over, which the caller may know first.
        let (admin, passed) = (self.envoy.admin, self.passed);
        let samples = until(format!("{passed} requests with the code OK or 200 to be counted"), || async {
            let samples = admin.prometheus().await?;
            let good = samples.iter().filter(|it| {
                it.is("predictgate_requests", &[("code", "OK")])
                    || it.is("predictgate_requests", &[("code", "http_200")])
            });
            let count = good.map(|it| it.value).sum::<f64>();
            Ok((count as u64 == passed).then_some(samples))
        })
        .await?;
        for sample in samples.iter().filter(|it| it.name.starts_with("predictgate_")) {
            let labels: Vec<_> =
                sample.labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
            self.report.say(&format!("{}{{{}}} {}", sample.name, labels.join(","), sample.value));
        }
        self.report.ok(&format!("the {passed} requests that were answered are counted"));
        let refused =
            samples.iter().filter(|it| it.name == "predictgate_rejected").map(|it| it.value).sum::<f64>();
        self.report.check("the refusals are counted", &(refused as u64), &4);
        Ok(())
    }

    async fn by_grpc(&mut self, ask: Ask) -> Result<Vec<f32>> {
        let reply = self.client.predict(&predict_request(MODEL, ask.asked, &X)).await?;
        if reply.code() != Code::Ok {
            self.report.say(&format!("{} over gRPC: {:?} {}", ask.words, reply.code(), reply.text));
            return Ok(Vec::new());
        }
        self.passed += 1;
        Ok(reply.ok()?.values().to_vec())
    }

    async fn by_rest(&mut self, ask: Ask) -> Result<Vec<f32>> {
        let answer = rest::post(self.envoy.addr, ask.path, instances()).await?;
        if answer.status == 200 {
            self.passed += 1;
        } else {
            self.report.say(&format!("{} over REST: {} {:?}", ask.words, answer.status, answer.body));
        }
        Ok(answer.values())
    }
}

fn instances() -> String {
    json!({ "instances": X }).to_string()
}
