//! Both say the same, about thousands of random documents.

use std::cell::Cell;

use catrust_policy::{AccessRequest, Action, Policies, PolicyBundle, PolicyFile, Resource};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::Value;

use crate::documents::{documents, questions};
use crate::reference::{Question, allows};

/// Random sets of documents; each is asked a dozen questions.
const CASES: u32 = 2_000;

fn compiled(documents: &[Value]) -> Policies {
    let files = documents.iter().enumerate().map(|(index, document)| {
        let text = serde_json::to_string_pretty(document).unwrap();
        PolicyFile::new("1", &format!("{index}.json"), text).unwrap()
    });
    Policies::compile(&PolicyBundle::new(files.collect()))
        .unwrap_or_else(|refused| panic!("{refused}\n{documents:#?}"))
}

fn request(question: &Question) -> AccessRequest<'_> {
    let [region_id, account_id, instance_id] = &question.resource;
    AccessRequest {
        principal: &question.principal,
        account_id: "1",
        operator: false,
        action: Action::find(question.action).unwrap(),
        resource: Resource { region_id, account_id, instance_id },
        source_ip: question.source_ip,
        time_ms: question.time_ms,
    }
}

#[test]
fn the_compiled_policies_say_what_the_documents_mean() {
    let answers = Cell::new([0_u32; 2]);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let outcome = runner.run(&(documents(), questions()), |(documents, questions)| {
        let policies = compiled(&documents);
        // Twice, so that remembered answers are among those compared.
        for question in questions.iter().chain(&questions) {
            let expected = allows(&documents, question);
            let decision = policies.decide(&request(question));
            prop_assert_eq!(decision.allowed, expected, "{:?}: {}", question, decision);
            prop_assert_eq!(&*decision, &policies.decide_anew(&request(question)), "{:?}", question);
            prop_assert!(decision.failures.is_empty(), "{}", decision);
            let mut counted = answers.get();
            counted[usize::from(expected)] += 1;
            answers.set(counted);
        }
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    // A comparison of refusals alone would show nothing.
    let [refused, allowed] = answers.get();
    assert!(refused > CASES && allowed > CASES, "{refused} refused, {allowed} allowed");
}
