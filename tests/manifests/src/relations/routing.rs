//! What the filter sets chooses the route, and each route has one place to go to, which exists.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Together;
use crate::Fault;
use crate::object::{Object, list, text};
use crate::plugin;

/// A header and its value.
type Header = (String, String);

/// One alternative of a route.
struct Alternative {
    /// What is asked of the path or the method; alternatives that share it lead one another's rest away.
    of: String,
    headers: BTreeSet<Header>,
}

struct Route<'a> {
    object: &'a Object,
    name: String,
    alternatives: Vec<Alternative>,
    destinations: &'a [Value],
}

pub fn check(together: &Together<'_>, faults: &mut Vec<Fault>) {
    let routes: Vec<Route<'_>> = together.objects.iter().flat_map(routes_of).collect();
    for route in &routes {
        let mut fault = |problem: String| {
            faults.push(Fault::new(route.object.place(), format!("route {}: {problem}", route.name)));
        };
        let [destination] = route.destinations else {
            let found = route.destinations.len();
            fault(format!("found {found} destinations, expected one: the weights are the filter's"));
            continue;
        };
        let problem = match route.object.kind() {
            "VirtualService" => subset(together, destination),
            _ => backend(together, route.object, destination),
        };
        if let Err(problem) = problem {
            fault(problem);
        }
    }
    steering(together, &routes, faults);
    for object in together.of_kind("VirtualService") {
        for gateway in object.list("/spec/gateways").iter().filter_map(Value::as_str) {
            let (namespace, name) = gateway.split_once('/').unwrap_or((object.namespace(), gateway));
            if together.named("Gateway", namespace, name).is_none() {
                faults.push(Fault::new(
                    object.place(),
                    format!("spec.gateways: there is no Gateway {gateway}"),
                ));
            }
        }
    }
}

/// For each path: every value that a target sets is matched, nothing else is, and the rest has a place to go.
fn steering(together: &Together<'_>, routes: &[Route<'_>], faults: &mut Vec<Fault>) {
    let configurations: Vec<_> = together.objects.iter().flat_map(plugin::configurations).collect();
    let set: BTreeSet<Header> = configurations.iter().flat_map(plugin::headers).collect();
    let mut by_path: BTreeMap<(String, &str), Vec<(&Route<'_>, &Alternative)>> = BTreeMap::new();
    for route in routes {
        for alternative in &route.alternatives {
            let key = (route.object.place(), alternative.of.as_str());
            by_path.entry(key).or_default().push((route, alternative));
        }
    }
    for ((place, of), alternatives) in by_path {
        let mut fault = |problem: String| faults.push(Fault::new(&place, format!("{of}: {problem}")));
        let matched: BTreeSet<&Header> =
            alternatives.iter().flat_map(|(_, alternative)| &alternative.headers).collect();
        // A path without any such match, as that of a method without a model, is not steered.
        if !matched.is_empty() {
            for (name, value) in set.iter().filter(|header| !matched.contains(header)) {
                fault(format!("no route matches {name}: {value}, which a target sets"));
            }
        }
        for (name, value) in matched.into_iter().filter(|header| !set.contains(header)) {
            fault(format!("a route matches {name}: {value}, which no target sets"));
        }
        match alternatives.last() {
            Some((_, last)) if last.headers.is_empty() => (),
            _ => fault("the last match asks for a header, expected one that takes the rest".to_owned()),
        }
        let early = alternatives.iter().rev().skip(1).find(|(_, it)| it.headers.is_empty());
        if let Some((route, _)) = early {
            fault(format!("route {} takes everything, so what follows it gets nothing", route.name));
        }
    }
}

fn routes_of(object: &Object) -> Vec<Route<'_>> {
    let (routes, destinations) = match object.kind() {
        "VirtualService" => ("/spec/http", "/route"),
        "GRPCRoute" | "HTTPRoute" => ("/spec/rules", "/backendRefs"),
        _ => return Vec::new(),
    };
    let routes = object.list(routes).iter().map(|route| Route {
        object,
        name: text(route, "/name").to_owned(),
        alternatives: match object.kind() {
            "VirtualService" => list(route, "/match").iter().map(of_istio).collect(),
            _ => list(route, "/matches").iter().map(of_gateway_api).collect(),
        },
        destinations: list(route, destinations),
    });
    routes.collect()
}

fn of_istio(matched: &Value) -> Alternative {
    let headers = matched.get("headers").and_then(Value::as_object).into_iter().flatten();
    Alternative {
        of: matched.get("uri").map(Value::to_string).unwrap_or_default(),
        headers: headers.map(|(name, value)| (name.clone(), text(value, "/exact").to_owned())).collect(),
    }
}

fn of_gateway_api(matched: &Value) -> Alternative {
    let of = [matched.get("path"), matched.get("method")];
    let headers = list(matched, "/headers").iter();
    Alternative {
        of: of.into_iter().flatten().map(Value::to_string).collect(),
        headers: headers.map(|it| (text(it, "/name").to_owned(), text(it, "/value").to_owned())).collect(),
    }
}

/// A destination of a VirtualService names a subset of a DestinationRule and a port of a Service.
fn subset(together: &Together<'_>, destination: &Value) -> Result<(), String> {
    let (host, subset) = (text(destination, "/destination/host"), text(destination, "/destination/subset"));
    let rule = together.of_kind("DestinationRule").find(|rule| rule.text("/spec/host") == host);
    let rule = rule.ok_or_else(|| format!("there is no DestinationRule for {host}"))?;
    let known: Vec<&str> = rule.list("/spec/subsets").iter().map(|subset| text(subset, "/name")).collect();
    if !known.contains(&subset) {
        return Err(format!("there is no subset {subset}, {} has {known:?}", rule.place()));
    }
    let service = host.strip_suffix(".svc.cluster.local").and_then(|host| host.split_once('.'));
    let (name, namespace) =
        service.ok_or_else(|| format!("{host}: expected NAME.NAMESPACE.svc.cluster.local"))?;
    port(together, namespace, name, destination.pointer("/destination/port/number"))
}

/// A backend of a Gateway API route names a Service and a port of it.
fn backend(together: &Together<'_>, route: &Object, backend: &Value) -> Result<(), String> {
    port(together, route.namespace(), text(backend, "/name"), backend.get("port"))
}

fn port(together: &Together<'_>, namespace: &str, name: &str, number: Option<&Value>) -> Result<(), String> {
    let service = together.named("Service", namespace, name);
    let service = service.ok_or_else(|| format!("there is no Service {namespace}/{name}"))?;
    let known: Vec<_> = service.list("/spec/ports").iter().filter_map(|port| port.get("port")).collect();
    match number {
        Some(number) if known.contains(&number) => Ok(()),
        number => Err(format!("there is no port {number:?} of {}", service.place())),
    }
}
