//! What changes between two specifications, field by field.

use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use warren_types::ServiceSpec;

/// One field that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldChange {
    /// Path, such as `container.image`.
    pub field: String,
    /// Value before, in JSON; `None` when the field is new.
    pub before: Option<String>,
    /// Value after, in JSON; `None` when the field goes away.
    pub after: Option<String>,
}

impl FieldChange {
    /// `~ field: before -> after`, `+ field: after` or `- field: before`.
    #[must_use]
    pub fn line(&self) -> String {
        match (&self.before, &self.after) {
            (Some(a), Some(b)) => format!("~ {}: {a} -> {b}", self.field),
            (None, Some(b)) => format!("+ {}: {b}", self.field),
            (Some(a), None) => format!("- {}: {a}", self.field),
            (None, None) => self.field.clone(),
        }
    }
}

/// Fields in which two service specifications differ. What the cluster itself filled in (the digest of
/// an image reference that stays) is not a difference.
#[must_use]
pub fn services(before: &ServiceSpec, after: &ServiceSpec) -> Vec<FieldChange> {
    let mut before = before.clone();
    if after.container.image_digest.is_none() && before.container.image == after.container.image {
        before.container.image_digest = None;
    }
    values(&to_json(&before), &to_json(after))
}

/// The fields of a new specification that are not the default.
#[must_use]
pub fn created(spec: &ServiceSpec) -> Vec<FieldChange> {
    let mut changes = values(&to_json(&ServiceSpec::default()), &to_json(spec));
    changes.retain(|c| c.after.is_some());
    changes.iter_mut().for_each(|c| c.before = None);
    changes
}

fn to_json(spec: &ServiceSpec) -> Value {
    serde_json::to_value(spec).unwrap_or(Value::Null)
}

fn values(before: &Value, after: &Value) -> Vec<FieldChange> {
    let (mut old, mut new) = (BTreeMap::new(), BTreeMap::new());
    flatten("", before, &mut old);
    flatten("", after, &mut new);
    let mut fields: Vec<&String> = old.keys().chain(new.keys()).collect();
    fields.sort();
    fields.dedup();
    fields
        .into_iter()
        .filter(|f| old.get(*f) != new.get(*f))
        .map(|f| FieldChange {
            field: f.clone(),
            before: old.get(f).cloned(),
            after: new.get(f).cloned(),
        })
        .collect()
}

/// Leaves by path; nothing, empty lists and empty maps are no leaves.
fn flatten(path: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Null => {}
        Value::Object(map) => {
            for (key, item) in map {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                flatten(&path, item, into);
            }
        }
        Value::Array(items) => {
            // Environment variables are told apart by their name, not by their position.
            let named = path.ends_with(".env");
            for (at, item) in items.iter().enumerate() {
                match (named, item.get("name").and_then(Value::as_str)) {
                    (true, Some(name)) => {
                        let value = item.get("value").unwrap_or(&Value::Null);
                        flatten(&format!("{path}.{name}"), value, into);
                    }
                    _ => flatten(&format!("{path}[{at}]"), item, into),
                }
            }
        }
        leaf => {
            into.insert(path.to_owned(), leaf.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_types::EnvVar;

    #[test]
    fn only_what_the_user_changed() {
        let mut before = ServiceSpec {
            name: "web".into(),
            ..ServiceSpec::default()
        };
        before.container.image = "nginx".into();
        before.container.env = vec![EnvVar {
            name: "A".into(),
            value: "1".into(),
        }];
        let mut after = before.clone();
        before.container.image_digest = Some("sha256:00".into());
        assert_eq!(services(&before, &after), []);
        after.container.env.insert(
            0,
            EnvVar {
                name: "B".into(),
                value: "2".into(),
            },
        );
        after.container.user = Some("www".into());
        before.container.working_dir = Some("/srv".into());
        let lines: Vec<String> = services(&before, &after)
            .iter()
            .map(FieldChange::line)
            .collect();
        assert_eq!(
            lines,
            [
                "+ container.env.B: \"2\"",
                "+ container.user: \"www\"",
                "- container.workingDir: \"/srv\"",
            ]
        );
        after.container.image = "nginx:2".into();
        assert!(
            services(&before, &after)
                .iter()
                .any(|c| c.field == "container.imageDigest")
        );
    }
}
