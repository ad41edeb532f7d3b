//! Policies in Cedar's own language: `.cedar`.

use std::collections::HashSet;

use cedar_policy::{
    Policy, PolicyId, PolicySet, Template, ValidationError, ValidationResult, ValidationWarning,
};
use miette::Diagnostic;

use crate::depth::{DEEPEST, too_deep};
use crate::folder::{Language, PolicyFile};
use crate::problem::{Problem, line_of};
use crate::schema::EntityKind;
use crate::{Action, pattern};

/// Reads the policies of a file, each under the id `ACCOUNT/FILE:LINE`, with its `@id`
/// behind it where it has one.
pub(crate) fn parse(file: &PolicyFile, problems: &mut Vec<Problem>) -> Vec<Policy> {
    if let Some(offset) = too_deep(&file.text) {
        let message =
            format!("one policy has more than {DEEPEST} operators and open brackets: write several");
        problems.push(Problem::new(&file.path, line_of(&file.text, offset), message));
        return Vec::new();
    }
    let set: PolicySet = match file.text.parse() {
        Ok(set) => set,
        Err(errors) => {
            problems.extend(errors.iter().map(|error| problem(file, 0, error)));
            return Vec::new();
        }
    };
    let mut policies = Vec::with_capacity(set.num_of_policies());
    let (mut rest, mut line) = (file.text.as_str(), 1);
    // The ids that the parser gives say in which order the policies stand.
    for id in (0..set.num_of_policies() + set.num_of_templates()).map(|n| PolicyId::new(format!("policy{n}")))
    {
        let (policy, template) = (set.policy(&id), set.template(&id));
        let text = policy
            .and_then(Policy::to_cedar)
            .or_else(|| template.map(Template::to_cedar))
            .unwrap_or_default();
        let start = rest.find(&text).unwrap_or_default();
        line += line_of(rest, start) - 1;
        rest = &rest[start..];
        match policy {
            Some(policy) => policies.push(policy.new_id(named(file, line, policy.annotation("id")))),
            None => problems.push(Problem::new(
                &file.path,
                line,
                "is a template, which nothing would fill in: write the principal or resource itself",
            )),
        }
        line += line_of(rest, text.len()) - 1;
        rest = &rest[text.len().min(rest.len())..];
    }
    for policy in &policies {
        check_patterns(file, policy, problems);
    }
    policies
}

fn named(file: &PolicyFile, line: usize, id: Option<&str>) -> PolicyId {
    let place = format!("{}:{line}", file.path);
    PolicyId::new(id.map_or(place.clone(), |id| format!("{place} ({id})")))
}

fn check_patterns(file: &PolicyFile, policy: &Policy, problems: &mut Vec<Problem>) {
    for uid in policy.entity_literals() {
        let text = uid.id().unescaped();
        let checked = match uid.type_name().basename() {
            name if name == EntityKind::PrincipalPattern.name() => pattern::check_principal(text),
            name if name == EntityKind::ResourcePattern.name() => pattern::check_resource(text),
            _ => Ok(()),
        };
        if let Err(message) = checked {
            problems.push(Problem::new(&file.path, line_of_id(file, policy.id()), message));
        }
    }
}

/// What does not fit the schema, and what can never apply: whoever wrote a denial that
/// denies nothing must hear of it.
pub(crate) fn misfits(files: &[PolicyFile], validated: &ValidationResult) -> Vec<Problem> {
    let errors = validated.validation_errors().map(|error| (error.policy_id(), error as &dyn Diagnostic));
    // A policy with an error is often reported as never applying, too; the error is enough.
    let broken: HashSet<_> = validated.validation_errors().map(ValidationError::policy_id).collect();
    let warnings = validated.validation_warnings().filter(|warning| {
        let never = matches!(
            warning,
            ValidationWarning::ImpossiblePolicy(_) | ValidationWarning::InvalidActionApplication(_)
        );
        never && !broken.contains(warning.policy_id())
    });
    let warnings = warnings.map(|warning| (warning.policy_id(), warning as &dyn Diagnostic));
    let found = errors.chain(warnings).map(|(id, diagnostic)| {
        let of_file = |file: &&PolicyFile| {
            AsRef::<str>::as_ref(id).strip_prefix(&file.path).is_some_and(|rest| rest.starts_with(':'))
        };
        files.iter().find(of_file).map_or_else(
            || Problem::new("", 0, said(diagnostic)),
            |file| problem(file, line_of_id(file, id), diagnostic),
        )
    });
    found.collect()
}

/// The line in an id that [`named`] made, or `ram::compile`.
fn line_of_id(file: &PolicyFile, id: &PolicyId) -> usize {
    let rest = AsRef::<str>::as_ref(id).strip_prefix(&file.path).unwrap_or_default();
    let digits: String = rest.chars().skip(1).take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

fn problem(file: &PolicyFile, line: usize, diagnostic: &dyn Diagnostic) -> Problem {
    let label = diagnostic.labels().and_then(|mut labels| labels.next());
    let line = match label {
        Some(label) if file.language == Language::Cedar => line_of(&file.text, label.offset()),
        _ => line,
    };
    Problem::new(&file.path, line, said(diagnostic))
}

/// The message and the help, on one line, without the id that stands before them.
fn said(diagnostic: &dyn Diagnostic) -> String {
    let message = diagnostic.to_string();
    let message = match message.strip_prefix("for policy `").and_then(|rest| rest.split_once("`, ")) {
        Some((_, rest)) => rest.to_owned(),
        None => message,
    };
    // Every action has the same context: said of each, it would be said many times.
    let message = Action::ALL.iter().fold(message, |message, action| {
        message.replace(&format!(" in context for Action::\"{}\"", action.name()), " in context")
    });
    let help = diagnostic.help().map(|help| format!(" ({help})")).unwrap_or_default();
    format!("{message}{help}").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use crate::{Policies, PolicyBundle, PolicyFile};

    fn compile(text: &str) -> Result<Policies, crate::PolicyProblems> {
        let file = PolicyFile::new("1", "a.cedar", text.to_owned()).unwrap();
        Policies::compile(&PolicyBundle::new(vec![file]))
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let error = compile(text).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }

    #[test]
    fn each_problem_is_named_with_its_line() {
        refused("permit(principal, action, resource)\n\nforbid", "1/a.cedar:3: unexpected end of input");
        refused(
            "\npermit(principal, action == Action::\"mq:Inactivate\", resource);",
            "1/a.cedar:2: unrecognized action `Action::\"mq:Inactivate\"`",
        );
        refused(
            "permit(principal == User::\"x\", action, resource);",
            "1/a.cedar:1: unrecognized entity type `User`",
        );
        refused(
            "permit(principal, action, resource) when {\n context.source_ip.isLoopback() };",
            "1/a.cedar:2: unable to guarantee safety of access to optional attribute `source_ip`",
        );
        refused(
            "permit(principal, action, resource)\nwhen { context.level > 3 };",
            "1/a.cedar:2: attribute `level`",
        );
        refused("permit(principal == ?principal, action, resource);", "1/a.cedar:1: is a template");
        refused(
            "// x\npermit(principal, action, resource in ResourcePattern::\"acs:mq:*\");",
            "1/a.cedar:2: \"acs:mq:*\" stands for no instance",
        );
        refused(&"(".repeat(999), "1/a.cedar:1: one policy has more than 256");
    }

    #[test]
    fn a_policy_that_can_never_apply_is_refused() {
        refused("forbid(principal, action, resource) when { 1 == 2 };", "1/a.cedar:1: policy is impossible");
    }

    #[test]
    fn every_problem_of_every_file_is_listed() {
        let file = |name, text: &str| PolicyFile::new("1", name, text.to_owned()).unwrap();
        let bundle = PolicyBundle::new(vec![
            file(
                "a.cedar",
                "permit(principal, action, resource) when { 1 };\npermit(principal, action, resource) when { 2 };",
            ),
            file("b.cedar", "x"),
            file("c.json", "{}"),
        ]);
        let refused = Policies::compile(&bundle).unwrap_err();
        let places: Vec<_> = refused.0.iter().map(crate::Problem::place).collect();
        assert_eq!(places, ["1/a.cedar:1", "1/a.cedar:2", "1/b.cedar:1", "1/c.json:1"]);
    }
}
