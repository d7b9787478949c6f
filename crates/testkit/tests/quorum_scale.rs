//! Many records: what `warren-bench scale` measures at full size, small enough to run each time. Looks at what is there,
//! not at the clock.

use warren_testkit::scale::{Size, equal, load, records};
use warren_testkit::{Managers, is_root, skipped};

/// The full size is 10,000 services with 10 containers each.
const SIZE: Size = Size {
    services: 200,
    replicas: 10,
};

#[test]
fn many_records_survive_a_snapshot_a_kill_and_reach_a_new_manager() {
    if !is_root() {
        return skipped(
            "many_records_survive_a_snapshot_a_kill_and_reach_a_new_manager",
            "needs root",
        );
    }
    let mut managers = Managers::start(1);
    // The least that a snapshot can be set to, so that there are many while the records are made.
    managers.set_snapshot_entries(10);
    load(&managers, SIZE).unwrap_or_else(|e| panic!("{e}\n{}", managers.logs()));
    let info = managers.info(0).unwrap_or_else(|e| panic!("{e}"));
    assert!(info.snapshot_index > 0, "no snapshot was taken: {info:?}");
    let before = equal(&managers).unwrap_or_else(|e| panic!("{e}"));

    managers.kill(0);
    managers.restart(0);
    managers.wait_quorum();
    records(&managers, 0, SIZE).unwrap_or_else(|e| panic!("after the kill: {e}"));

    let new = managers.add();
    let after = equal(&managers).unwrap_or_else(|e| panic!("{e}"));
    assert_ne!(before, after, "a new manager is a change of the state");
    records(&managers, new, SIZE).unwrap_or_else(|e| panic!("at the new manager: {e}"));
    managers.reset();
}
