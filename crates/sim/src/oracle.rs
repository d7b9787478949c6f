//! Knows what the answers must be.

use std::collections::VecDeque;
use warren_raft::ProposeError;
use warren_state::{Applied, ClusterState, Command, Rejection};

/// How a proposal ended.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Applied(Applied),
    Rejected(Rejection),
    /// It certainly did not get into the log; why.
    NotTaken(String),
    /// It may be in the log or not; why that is not known.
    Unknown(String),
}

impl Answer {
    pub(crate) fn of(result: Result<Applied, ProposeError>) -> Self {
        match result {
            Ok(applied) => Self::Applied(applied),
            Err(ProposeError::Rejected(rejection)) => Self::Rejected(rejection),
            Err(error) if error.certainly_not_applied() => Self::NotTaken(error.to_string()),
            Err(error) => Self::Unknown(error.to_string()),
        }
    }

    fn is_acknowledged(&self) -> bool {
        matches!(self, Self::Applied(_) | Self::Rejected(_))
    }
}

/// Applies the proposed commands, in the order in which they were proposed, to a state of its own.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    state: ClusterState,
    /// Proposed and not yet applied here. No answer: under way.
    waiting: VecDeque<(Command, Option<Answer>)>,
    /// Number of the first of those that wait.
    first: usize,
}

impl Oracle {
    pub(crate) fn state(&self) -> &ClusterState {
        &self.state
    }

    /// Notes a proposal; the number is for its answer.
    pub(crate) fn proposed(&mut self, command: Command) -> usize {
        self.waiting.push_back((command, None));
        self.first + self.waiting.len() - 1
    }

    /// Notes an answer.
    pub(crate) fn answered(&mut self, number: usize, answer: Answer) {
        if let Some((_, slot)) = number
            .checked_sub(self.first)
            .and_then(|at| self.waiting.get_mut(at))
        {
            *slot = Some(answer);
        }
    }

    /// Applies everything up to the last acknowledged command. What is before it in the log was applied too,
    /// whatever its proposer heard.
    pub(crate) fn advance(&mut self) -> Result<(), String> {
        let acknowledged = self
            .waiting
            .iter()
            .rposition(|(_, answer)| answer.as_ref().is_some_and(Answer::is_acknowledged));
        for _ in 0..acknowledged.map_or(0, |at| at + 1) {
            let Some((command, answer)) = self.waiting.pop_front() else {
                break;
            };
            let number = self.first;
            self.first += 1;
            if matches!(answer, Some(Answer::NotTaken(_))) {
                continue;
            }
            let expected = self.state.apply(&command);
            match (answer, expected) {
                (Some(Answer::Applied(found)), Ok(expected))
                    if found.revision == expected.revision && found.results == expected.results => {
                }
                (Some(Answer::Rejected(found)), Err(expected)) if found == expected => {}
                (None | Some(Answer::Unknown(_)), _) => {}
                (answer, expected) => {
                    return Err(format!(
                        "command {number} was answered {answer:?}, expected {expected:?}"
                    ));
                }
            }
        }
        // Those at the end that were certainly refused say nothing about the log.
        while matches!(self.waiting.front(), Some((_, Some(Answer::NotTaken(_))))) {
            self.waiting.pop_front();
            self.first += 1;
        }
        Ok(())
    }

    /// Compares with the state that a restart brought back; goes on from it.
    pub(crate) fn recovered(&mut self, found: &ClusterState) -> Result<usize, String> {
        self.advance()?;
        let lowest = self.state.revision();
        let mut more = 0;
        loop {
            if self.state == *found {
                self.first += self.waiting.len();
                self.waiting.clear();
                return Ok(more);
            }
            let Some((command, answer)) = self.waiting.pop_front() else {
                break;
            };
            self.first += 1;
            if !matches!(answer, Some(Answer::NotTaken(_))) {
                more += 1;
                // A refused one changes nothing, which is what comes of it here too.
                let _ = self.state.apply(&command);
            }
        }
        Err(format!(
            "a restart brought back revision {}, acknowledged was {lowest}, with all that was under way it would be {}",
            found.revision(),
            self.state.revision()
        ))
    }
}
