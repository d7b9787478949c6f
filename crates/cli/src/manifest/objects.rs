//! `kind: Secret` and `kind: Volume`.

use super::node::{Kind, Pos};
use super::walk::{Obj, Val};
use super::{ReadFile, SecretItem, SecretValue, VolumeItem};
use base64::Engine as _;
use std::collections::BTreeMap;
use std::path::Path;
use warren_types::limits::SECRET_BYTES_MAX;

/// Reads the `spec` of a secret.
pub(super) fn secret(
    spec: &Obj<'_>,
    name: String,
    labels: BTreeMap<String, String>,
    read_file: &ReadFile<'_>,
) -> Option<SecretItem> {
    let kind = spec.get("type");
    let kind_text = kind.as_ref().and_then(Val::text);
    if let (Some(value), Some(other)) = (&kind, &kind_text)
        && !matches!(other.to_ascii_lowercase().as_str(), "opaque" | "tls")
    {
        value.fail(format!(
            "{other:?} is not a type of secret; use Opaque or TLS"
        ));
    }
    let data = spec.get("data");
    let plain = spec.get("stringData");
    let file = spec.get("fromFile");
    let external = spec.get("external");
    let given = [data.is_some(), plain.is_some(), file.is_some()];
    if external.as_ref().and_then(Val::boolean) == Some(true) {
        if given.contains(&true) {
            spec.fail("an external secret exists already; remove its value");
        }
        return Some(SecretItem {
            name,
            labels,
            value: SecretValue::External,
        });
    }
    if given.iter().filter(|g| **g).count() != 1 {
        spec.fail("exactly one of data (base64), stringData (as it is) and fromFile is needed");
        return None;
    }
    let bytes = if let Some(value) = data {
        from_data(&value)?
    } else if let Some(value) = plain {
        one_text(&value)?.1.into_bytes()
    } else {
        let value = file?;
        let path = value.text()?;
        match read_file(Path::new(&path)) {
            Ok(bytes) => bytes,
            Err(problem) => {
                value.fail(problem);
                return None;
            }
        }
    };
    if bytes.is_empty() || bytes.len() > SECRET_BYTES_MAX {
        spec.fail(&format!(
            "the value has {} bytes; use 1 to {SECRET_BYTES_MAX}",
            bytes.len()
        ));
        return None;
    }
    Some(SecretItem {
        name,
        labels,
        value: SecretValue::Bytes(bytes),
    })
}

/// The text itself, or the one value of a map.
fn one_text<'a>(value: &Val<'a>) -> Option<(Val<'a>, String)> {
    let Kind::Map(_) = value.node.kind else {
        return value.loose_text().map(|text| (value.clone(), text));
    };
    let object = value.object()?;
    let mut entries = object.values();
    match (entries.next(), entries.next()) {
        (Some((_, only)), None) => only.loose_text().map(|text| (only, text)),
        _ => {
            value.fail("a secret is one file and so has one value; write one Secret for each key");
            None
        }
    }
}

/// Base64, except for PEM blocks, which are no base64 as a whole.
fn from_data(value: &Val<'_>) -> Option<Vec<u8>> {
    let (place, text) = one_text(value)?;
    if text.trim_start().starts_with("-----BEGIN ") {
        return Some(text.into_bytes());
    }
    let packed: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    match base64::engine::general_purpose::STANDARD.decode(&packed) {
        Ok(bytes) => {
            if !packed.is_empty() && std::str::from_utf8(&bytes).is_err() {
                place.warn(
                    "decoded from base64 to bytes that are not text; if the text itself is the secret, write stringData",
                );
            }
            Some(bytes)
        }
        Err(_) => {
            place.fail(
                "not base64; encode the value, or write stringData instead of data to take the text as it is",
            );
            None
        }
    }
}

/// Reads the `spec` of a volume.
pub(super) fn volume(
    spec: Option<&Obj<'_>>,
    name: String,
    mut labels: BTreeMap<String, String>,
    pos: Pos,
) -> VolumeItem {
    let get = |key: &'static str| spec.and_then(|s| s.get(key));
    labels.extend(get("labels").map(|v| v.text_map()).unwrap_or_default());
    VolumeItem {
        name,
        driver: get("driver")
            .and_then(|v| v.text())
            .unwrap_or_else(|| "local".to_owned()),
        driver_opts: spec
            .and_then(|s| s.any(&["driverOpts", "driver_opts", "options"]))
            .map(|v| v.text_map())
            .unwrap_or_default(),
        labels,
        pos,
    }
}
