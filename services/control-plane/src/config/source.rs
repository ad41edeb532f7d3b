//! Where settings come from: the file, then the environment over it.
//!
//! Nothing here looks at the process: the caller hands in the path and the
//! variables, so that a test needs neither.

use std::path::Path;

use catrust_access::secret_toml::SyntaxError;
use figment::value::{Dict, Map, Num, Tag, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::error::{ConfigError, Problems, SettingProblem};

/// Prefix of the variables that are settings.
const PREFIX: &str = "CATRUST_";
/// Parts section and key. A variable with the prefix but without it is not a
/// setting: `CATRUST_TOKEN` is the CLI's, `CATRUST_SERVICE_HOST` Kubernetes'.
const SEPARATOR: &str = "__";

/// One source, whose name appears in errors.
struct Layer {
    name: String,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

/// Lays the file and the variables over each other; later ones win.
pub(crate) fn gather(
    path: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    defaults: &Value,
) -> Result<Figment, ConfigError> {
    let mut figment = Figment::new();
    if let Some(path) = path {
        figment = figment.merge(file_layer(path)?);
    }
    let mut problems = Problems::default();
    for (name, text) in env {
        if let Some(layer) = variable_layer(&name, &text, defaults, &mut problems) {
            figment = figment.merge(layer);
        }
    }
    problems.into_result()?;
    Ok(figment)
}

fn file_layer(path: &Path) -> Result<Layer, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::unreadable(path, source))?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| SyntaxError::new(path, &text, &error))?;
    let values = Value::serialize(table).map_err(|error| explain(error, None))?;
    let values = values.into_dict().unwrap_or_default();
    Ok(Layer { name: path.display().to_string(), values })
}

/// The layer of one variable; none when it is not a setting, or empty: an empty
/// variable counts as not set, as compose files and manifests leave them.
fn variable_layer(name: &str, text: &str, defaults: &Value, problems: &mut Problems) -> Option<Layer> {
    let (section, key) = name.strip_prefix(PREFIX)?.split_once(SEPARATOR)?;
    if text.is_empty() {
        return None;
    }
    let path = format!("{section}{SEPARATOR}{key}").to_ascii_lowercase().replace(SEPARATOR, ".");
    let value = match typed(text, defaults.find_ref(&path)) {
        Ok(value) => value,
        Err(message) => {
            problems.add(path, format!("{message} (from {name})"));
            return None;
        }
    };
    let nest = |value, key: &str| Value::from(Dict::from([(key.to_owned(), value)]));
    let values = path.rsplit('.').fold(value, nest).into_dict().unwrap_or_default();
    Some(Layer { name: name.to_owned(), values })
}

/// Reads a variable as the type that the setting has by default. Guessing the type
/// from the text instead would turn the password `0123` into a number.
fn typed(text: &str, default: Option<&Value>) -> Result<Value, String> {
    match default {
        Some(Value::Bool(..)) => match text {
            "true" => Ok(Value::from(true)),
            "false" => Ok(Value::from(false)),
            _ => Err(format!("must be true or false, is {text:?}")),
        },
        Some(Value::Num(_, Num::F32(_) | Num::F64(_))) => text
            .parse::<f64>()
            .map(|number| Value::Num(Tag::Default, Num::F64(number)))
            .map_err(|_| format!("must be a number, is {text:?}")),
        Some(Value::Num(..)) => {
            text.parse::<u64>().map(Value::from).map_err(|_| format!("must be a whole number, is {text:?}"))
        }
        Some(Value::Array(..)) => {
            Ok(Value::from(text.split(',').map(str::trim).map(Value::from).collect::<Vec<_>>()))
        }
        _ => Ok(Value::from(text)),
    }
}

/// Says what figment found in our words: the setting, what it must be, and where it
/// was set.
pub(crate) fn explain(error: figment::Error, file: Option<&Path>) -> ConfigError {
    ConfigError::Settings(error.into_iter().map(|error| problem(&error, file)).collect())
}

fn problem(error: &figment::Error, file: Option<&Path>) -> SettingProblem {
    use figment::error::Kind;
    let message = match &error.kind {
        Kind::UnknownField(name, known) => {
            let known = known.join(", ");
            format!("there is no such setting as {name:?} here; known are {known}")
        }
        Kind::InvalidType(found, expected) => format!("must be {expected}, is {found}"),
        Kind::InvalidValue(found, expected) => format!("must be {expected}, is {found}"),
        Kind::UnknownVariant(found, known) => format!("must be one of {}, is {found:?}", known.join(", ")),
        other => other.to_string(),
    };
    let origin = error.metadata.as_ref().map(|metadata| metadata.name.to_string());
    let origin = origin.or_else(|| file.map(|path| path.display().to_string()));
    let from = origin.map(|origin| format!(" (from {origin})")).unwrap_or_default();
    let key = if error.path.is_empty() { "settings".to_owned() } else { error.path.join(".") };
    SettingProblem { key, message: format!("{message}{from}") }
}
