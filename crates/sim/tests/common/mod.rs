//! What the tests of whole clusters and of one manager share.

/// Seeds that planted bugs may take.
pub const SEEDS_TO_FIND: u64 = 1_000;

/// Seeds of the long run; `WARREN_SIM_SEEDS` overrides.
pub fn seeds() -> u64 {
    std::env::var("WARREN_SIM_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(2_000)
}

/// Runs a seed twice: both must do the same, line by line. `run` gives the hash of the trace and its lines.
pub fn repeats(seed: u64, run: impl Fn() -> (u64, Vec<String>)) {
    let (first, lines) = run();
    let (second, again) = run();
    let differs = lines.iter().zip(&again).find(|(a, b)| a != b);
    assert_eq!(differs, None, "seed {seed}");
    assert_eq!(first, second, "seed {seed}");
    println!("seed {seed}: trace {first:016x}");
}
