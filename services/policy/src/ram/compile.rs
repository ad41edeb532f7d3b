//! From a RAM document to Cedar policies, one for each statement.
//!
//! They are made in Cedar's JSON format: no text of a document is ever pasted into
//! Cedar's own language, so that there is no quoting to get wrong.

use cedar_policy::{Policy, PolicyId};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::condition;
use super::document::{Effect, RamDocument, RamStatement};
use crate::folder::PolicyFile;
use crate::problem::{Problem, line_of};
use crate::schema::EntityKind;
use crate::{Action, pattern};

/// Reads the policies of a document, each under the id `ACCOUNT/FILE:LINE (statement N)`.
pub(crate) fn compile(file: &PolicyFile, problems: &mut Vec<Problem>) -> Vec<Policy> {
    let document: RamDocument<'_> = match serde_json::from_str(&file.text) {
        Ok(document) => document,
        Err(error) => {
            problems.push(Problem::new(&file.path, error.line(), without_position(&error)));
            return Vec::new();
        }
    };
    let before = problems.len();
    let mut refuse = |message: String| problems.push(Problem::new(&file.path, 1, message));
    if document.version != "1" {
        refuse(format!("Version is {:?}, must be \"1\"", document.version));
    }
    if document.statement.is_empty() {
        refuse("Statement is empty: it says nothing".to_owned());
    }
    for name in &document.principal.0 {
        if let Err(problem) = pattern::check_principal(name) {
            refuse(format!("Principal: {problem}"));
        }
    }
    let principals = fits("principal", "name", EntityKind::PrincipalPattern, &document.principal.0);
    let mut policies = Vec::with_capacity(document.statement.len());
    for (index, statement) in document.statement.iter().enumerate() {
        // Both point into the same text.
        let start = statement.get().as_ptr().addr() - file.text.as_ptr().addr();
        let first_line = line_of(&file.text, start);
        let number = index + 1;
        match compile_statement(statement, principals.as_ref()) {
            Ok(tree) => {
                let id = PolicyId::new(format!("{}:{first_line} (statement {number})", file.path));
                match Policy::from_json(Some(id), tree) {
                    Ok(policy) => policies.push(policy),
                    Err(error) => problems.push(Problem::new(&file.path, first_line, error.to_string())),
                }
            }
            Err(found) => problems.extend(found.into_iter().map(|(line, message)| {
                Problem::new(&file.path, first_line + line, format!("statement {number}: {message}"))
            })),
        }
    }
    if problems.len() > before { Vec::new() } else { policies }
}

/// Problems come with their line within the statement, from 0.
fn compile_statement(text: &RawValue, principals: Option<&Value>) -> Result<Value, Vec<(usize, String)>> {
    let statement: RamStatement = serde_json::from_str(text.get())
        .map_err(|error| vec![(error.line().saturating_sub(1), without_position(&error))])?;
    let mut problems = Vec::new();
    let actions = actions(&statement.action.0).unwrap_or_else(|found| {
        problems.extend(found);
        Vec::new()
    });
    for resource in &statement.resource.0 {
        problems
            .extend(pattern::check_resource(resource).err().map(|problem| format!("Resource: {problem}")));
    }
    let conditions = condition::expressions(statement.effect, &statement.condition).unwrap_or_else(|found| {
        problems.extend(found);
        Vec::new()
    });
    if !problems.is_empty() {
        return Err(problems.into_iter().map(|problem| (0, problem)).collect());
    }
    let resources = fits("resource", "arn", EntityKind::ResourcePattern, &statement.resource.0);
    let bodies = principals.cloned().into_iter().chain(resources).chain(conditions);
    let effect = match statement.effect {
        Effect::Allow => "permit",
        Effect::Deny => "forbid",
    };
    Ok(json!({
        "effect": effect,
        "principal": {"op": "All"},
        "action": {"op": "in", "entities": actions},
        "resource": {"op": "All"},
        "conditions": bodies.map(|body| json!({"kind": "when", "body": body})).collect::<Vec<_>>(),
    }))
}

/// The actions that the patterns stand for, as Cedar's entities.
fn actions(patterns: &[String]) -> Result<Vec<Value>, Vec<String>> {
    let stands_for =
        |pattern: &str, action: Action| pattern == "*" || pattern::matches(pattern, action.name());
    let unknown =
        patterns.iter().filter(|pattern| !Action::ALL.iter().any(|action| stands_for(pattern, *action)));
    let problems: Vec<_> =
        unknown.map(|pattern| format!("Action: {pattern:?} stands for no action of catrust")).collect();
    if !problems.is_empty() {
        return Err(problems);
    }
    let meant =
        Action::ALL.into_iter().filter(|action| patterns.iter().any(|pattern| stands_for(pattern, *action)));
    Ok(meant.map(|action| json!({"type": EntityKind::Action.name(), "id": action.name()})).collect())
}

/// That an attribute of a variable fits one of the patterns; nothing where all fit.
fn fits(variable: &str, attribute: &str, patterns: EntityKind, texts: &[String]) -> Option<Value> {
    if texts.iter().any(|text| text == "*") {
        return None;
    }
    let fit = |text: &String| {
        if text.contains('?') {
            let entity = json!({"__entity": {"type": patterns.name(), "id": text}});
            return json!({"in": {"left": {"Var": variable}, "right": {"Value": entity}}});
        }
        let name = json!({".": {"left": {"Var": variable}, "attr": attribute}});
        json!({"like": {"left": name, "pattern": like(text)}})
    };
    Some(or(&texts.iter().map(fit).collect::<Vec<_>>()))
}

fn like(pattern: &str) -> Vec<Value> {
    let mut elements = Vec::new();
    for (index, literal) in pattern.split('*').enumerate() {
        if index > 0 {
            elements.push(json!("Wildcard"));
        }
        if !literal.is_empty() {
            elements.push(json!({"Literal": literal}));
        }
    }
    elements
}

/// That one of the expressions holds. Halved again and again, because a chain of a
/// thousand would be a thousand deep.
pub(super) fn or(expressions: &[Value]) -> Value {
    match expressions {
        [] => json!({"Value": false}),
        [one] => one.clone(),
        many => {
            let (left, right) = many.split_at(many.len() / 2);
            json!({"||": {"left": or(left), "right": or(right)}})
        }
    }
}

/// The message alone: the position in it is that of a part.
fn without_position(error: &serde_json::Error) -> String {
    let message = error.to_string();
    message.rsplit_once(" at line ").map_or(message.clone(), |(message, _)| message.to_owned())
}
