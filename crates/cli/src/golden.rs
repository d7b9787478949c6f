//! Golden files of tests: recorded output beside what the program says now.

use std::path::PathBuf;

/// Compares a text with the recorded one; `UPDATE_EXPECT=1` records it.
pub(crate) fn check(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        return;
    }
    let recorded = std::fs::read_to_string(&path).unwrap_or_default();
    if recorded == text {
        return;
    }
    let difference = recorded
        .lines()
        .zip(text.lines())
        .enumerate()
        .find(|(_, (a, b))| a != b);
    panic!(
        "{name} differs (UPDATE_EXPECT=1 records the new text); first difference: {difference:?}; {} lines recorded, {} now",
        recorded.lines().count(),
        text.lines().count()
    );
}
