//! The record of a run.

use std::path::PathBuf;
use std::time::Duration;
use warren_sim::history::{HistoryOp, Outcome, Summary, check, write_lines};

/// What was asked and answered so far.
#[derive(Debug, Default)]
pub struct Record {
    history: Vec<HistoryOp>,
    /// When accepted writes were asked for and answered, in the order of the answers.
    accepted: Vec<(u64, u64)>,
    last_failure: Option<String>,
}

/// A correct record.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// What it contained.
    pub summary: Summary,
    /// Failures by their words, with how often each happened; numbers in the words are left out.
    pub failures: Vec<(String, usize)>,
}

impl Record {
    pub(super) fn add(&mut self, op: HistoryOp) {
        match (&op.outcome, op.completed) {
            (Outcome::Written { .. } | Outcome::Deleted { .. }, Some(completed)) => {
                self.accepted.push((op.invoked, completed));
            }
            (Outcome::Failed { reason } | Outcome::Unknown { reason }, _) => {
                self.last_failure = Some(reason.clone());
            }
            _ => {}
        }
        self.history.push(op);
    }

    pub(super) fn last_failure(&self) -> Option<String> {
        self.last_failure.clone()
    }

    /// Requests that were answered since a moment, refusals by an object's state included.
    pub(super) fn answered_since(&self, since: u64) -> (u64, Option<String>) {
        let answered = |op: &&HistoryOp| !matches!(op.outcome, Outcome::Unknown { .. });
        let recent = self.history.iter().rev();
        // Records come in the order of the answers, more or less: a long way back nothing is recent.
        let recent = recent.take_while(|op| op.completed.is_none_or(|at| at >= since));
        (recent.filter(answered).count() as u64, self.last_failure())
    }

    pub(super) fn accepted_since(&self, since: u64) -> (usize, Option<String>) {
        let recent = self
            .accepted
            .iter()
            .rev()
            .take_while(|(_, at)| *at >= since);
        let count = recent.filter(|(invoked, _)| *invoked >= since).count();
        (count, self.last_failure())
    }

    pub(super) fn first_accepted(&self, since: u64) -> Option<u64> {
        let recent = self
            .accepted
            .iter()
            .rev()
            .take_while(|(_, at)| *at >= since);
        recent
            .filter(|(invoked, _)| *invoked >= since)
            .map(|(_, at)| *at)
            .min()
    }

    pub(super) fn longest_gap(&self, since: u64, now: u64) -> Duration {
        let recent = self.accepted.iter().map(|(_, at)| *at);
        let mut times: Vec<u64> = recent.filter(|at| *at >= since).collect();
        times.push(since);
        times.push(now);
        times.sort_unstable();
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        Duration::from_nanos(gaps.max().unwrap_or(0))
    }

    /// Checks the whole.
    ///
    /// # Panics
    /// When it is wrong.
    pub(super) fn check(&self, test: &str, seed: u64) -> Verdict {
        match check(&self.history) {
            Ok(summary) => Verdict {
                summary,
                failures: self.failures(),
            },
            Err(violation) => {
                let kept = self.keep(test, seed);
                panic!(
                    "{test}: seed {seed}: {violation}\nthe record is kept in {}",
                    kept.display()
                );
            }
        }
    }

    fn keep(&self, test: &str, seed: u64) -> PathBuf {
        let path = std::env::temp_dir().join(format!("warren-history-{test}-{seed}.jsonl"));
        let file = std::fs::File::create(&path);
        let mut file =
            std::io::BufWriter::new(file.unwrap_or_else(|e| panic!("{}: {e}", path.display())));
        write_lines(&self.history, &mut file).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }

    fn failures(&self) -> Vec<(String, usize)> {
        let mut counts = std::collections::BTreeMap::<String, usize>::new();
        for op in &self.history {
            let (prefix, reason) = match &op.outcome {
                Outcome::Failed { reason } => ("refused", reason),
                Outcome::Unknown { reason } => ("unknown", reason),
                _ => continue,
            };
            let words: String = reason.chars().filter(|c| !c.is_ascii_digit()).collect();
            *counts.entry(format!("{prefix}: {words}")).or_default() += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts
    }
}

impl Verdict {
    /// In a few lines, for people.
    #[must_use]
    pub fn text(&self) -> String {
        let s = &self.summary;
        let mut text = format!(
            "{} requests on {} objects: {} writes accepted, {} refused, {} of unknown outcome ({} of them took effect), {} linearizable \
             and {} stale reads; the history is that of a correct store, and no accepted write is lost",
            s.ops,
            s.objects,
            s.written,
            s.failed,
            s.unknown,
            s.unknown_seen,
            s.linearizable_reads,
            s.stale_reads
        );
        for (words, count) in self.failures.iter().take(8) {
            let short: String = words.chars().take(160).collect();
            text += &format!("\n  {count} x {short}");
        }
        text
    }
}
