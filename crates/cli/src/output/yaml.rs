//! YAML output of a JSON value.

use serde_json::Value;

/// The value as a YAML document, ended by a newline. Texts that could be read as anything else are
/// written as JSON strings, which are YAML too.
#[must_use]
pub fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(_) | Value::Array(_) if !is_empty(value) => block(value, 0, &mut out),
        scalar => {
            out.push_str(&inline(scalar));
            out.push('\n');
        }
    }
    out
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => true,
    }
}

fn block(value: &Value, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(map) => {
            for (key, item) in map {
                out.push_str(&pad);
                out.push_str(&text(key));
                out.push(':');
                after_key(item, indent + 2, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                if is_empty(item) {
                    out.push_str(&format!("{pad}- {}\n", inline(item)));
                } else {
                    // The first line of the item stands behind the dash.
                    let mut inner = String::new();
                    block(item, indent + 2, &mut inner);
                    out.push_str(&pad);
                    out.push_str("- ");
                    out.push_str(inner.get(indent + 2..).unwrap_or_default());
                }
            }
        }
        scalar => out.push_str(&format!("{pad}{}\n", inline(scalar))),
    }
}

fn after_key(item: &Value, indent: usize, out: &mut String) {
    if is_empty(item) {
        out.push(' ');
        out.push_str(&inline(item));
        out.push('\n');
    } else {
        out.push('\n');
        block(item, indent, out);
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(s) => text(s),
        other => other.to_string(),
    }
}

/// Plain where that is safe, else a JSON string.
fn text(s: &str) -> String {
    let plain_start = s.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '_'));
    let plain = s
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-' | '.' | '@' | '+'));
    let reserved = matches!(
        s.to_ascii_lowercase().as_str(),
        "null" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n"
    );
    if plain_start && plain && !reserved {
        s.to_owned()
    } else {
        Value::String(s.to_owned()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nested() {
        let value = json!({"a": [1, {"b": "x y", "c": []}, [2, "no"]], "d": {}, "e": null, "f": "12:30", "g": {"h": "img/x-1.2"}});
        assert_eq!(
            to_yaml(&value),
            "a:\n  - 1\n  - b: \"x y\"\n    c: []\n  - - 2\n    - \"no\"\nd: {}\ne: null\nf: \"12:30\"\ng:\n  h: img/x-1.2\n"
        );
    }
}
