//! Decides the requests of a directory with Cedar's own crate and says what one decision costs.
//!
//! The directory has policies.json (id to text) and requests.json (a list of {principal, action,
//! resource, entities, context}; the last two are JSON texts). One line is printed for each request:
//! the decision, the determining policies, and the processor time of one decision in nanoseconds,
//! from the two texts to the answer.

use std::{collections::BTreeMap, fs, path::Path, str::FromStr};

use cedar_policy::{
    Authorizer, Context, Decision, Entities, EntityUid, Policy, PolicyId, PolicySet, Request, Response,
};
use serde_json::{json, Value};

fn decide(policies: &PolicySet, uids: &[EntityUid; 3], entities: &str, context: &str) -> Response {
    let entities = Entities::from_json_str(entities, None).expect("entities");
    let context = Context::from_json_str(context, None).expect("context");
    let [principal, action, resource] = uids.clone();
    let request = Request::new(principal, action, resource, context, None).expect("request");
    Authorizer::new().is_authorized(&request, policies, &entities)
}

fn processor_nanoseconds() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists and t is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

fn main() {
    let dir = std::env::args().nth(1).expect("a directory");
    let read = |name: &str| fs::read_to_string(Path::new(&dir).join(name)).expect("a file of the directory");
    let texts: BTreeMap<String, String> = serde_json::from_str(&read("policies.json")).expect("policies");
    let mut policies = PolicySet::new();
    for (id, text) in texts {
        policies.add(Policy::parse(Some(PolicyId::new(id)), text).expect("a policy")).expect("a new id");
    }
    let requests: Vec<Value> = serde_json::from_str(&read("requests.json")).expect("requests");
    for r in requests {
        let text = |member: &str| r[member].as_str().expect("a string").to_owned();
        let uids = ["principal", "action", "resource"].map(|m| EntityUid::from_str(&text(m)).expect("an entity"));
        let (entities, context) = (text("entities"), text("context"));
        let response = decide(&policies, &uids, &entities, &context);
        let mut calls = 0;
        let start = processor_nanoseconds();
        while processor_nanoseconds() - start < 500_000_000 {
            std::hint::black_box(decide(&policies, &uids, &entities, &context));
            calls += 1;
        }
        let cost = (processor_nanoseconds() - start) / calls;
        let mut reasons: Vec<_> = response.diagnostics().reason().map(ToString::to_string).collect();
        reasons.sort();
        println!(
            "{}",
            json!({"allow": response.decision() == Decision::Allow, "determining": reasons,
                   "errors": response.diagnostics().errors().count(), "nanoseconds": cost})
        );
    }
}
