//! Proposals that come while others are under way go to the engine together.
//!
//! Each turn of the engine costs the same whether it carries one proposal or fifty: a write and a sync on every manager, a
//! message to each follower and its answer. Handing over each proposal as it comes makes many small turns, for none of
//! which the processor then has the time. So at most [`UNDER_WAY_MAX`] turns are under way, and what comes meanwhile waits
//! for the next. That costs nobody anything: a follower takes one message after the other anyway. A proposal that is alone
//! goes at once.

use crate::handle::{Engine, RaftHandle};
use crate::types::{CommandBytes, Outcome, Types};
use futures::StreamExt;
use openraft::errors::{ClientWriteError, Fatal, RaftError};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Turns under way: one on its way to the followers, and one that is made ready meanwhile.
const UNDER_WAY_MAX: usize = 2;
/// Most bytes of commands in one turn; one command is always taken.
const TURN_BYTES_MAX: usize = 1024 * 1024;

pub(crate) type Answer = Result<Outcome, RaftError<Types, ClientWriteError<Types>>>;

struct Waiting {
    command: CommandBytes,
    answer: oneshot::Sender<Answer>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    under_way: usize,
}

impl Queue {
    /// The next turn; none when nobody waits.
    fn next(&mut self) -> Vec<Waiting> {
        let mut bytes = 0;
        let mut turn = Vec::new();
        while let Some(next) = self.waiting.pop_front() {
            // Whoever has given up was told that it is not known what becomes of its proposal: nothing, then.
            if next.answer.is_closed() {
                continue;
            }
            bytes += next.command.bytes.len();
            if bytes > TURN_BYTES_MAX && !turn.is_empty() {
                self.waiting.push_front(next);
                break;
            }
            turn.push(next);
        }
        turn
    }
}

/// The proposals of this node on their way to the engine.
#[derive(Default)]
pub(crate) struct Batches {
    queue: Mutex<Queue>,
}

impl Batches {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to have one turn after the other under way. Dropped, it goes on to the next turn or ends.
struct Place {
    engine: Engine,
    batches: Arc<Batches>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut queue = self.batches.queue();
        let turn = queue.next();
        if turn.is_empty() {
            queue.under_way -= 1;
            return;
        }
        drop(queue);
        let place = Self {
            engine: self.engine.clone(),
            batches: Arc::clone(&self.batches),
        };
        crate::runtime::spawn(place.run(turn));
    }
}

impl Place {
    async fn run(self, turn: Vec<Waiting>) {
        let (commands, answers): (Vec<_>, Vec<_>) = turn
            .into_iter()
            .map(|waiting| (waiting.command, waiting.answer))
            .unzip();
        let mut results = match self.engine.client_write_many(commands).await {
            Ok(results) => results,
            // Those who wait learn it from their end of the channel.
            Err(_) => return,
        };
        for answer in answers {
            let Some(Ok(result)) = results.next().await else {
                return;
            };
            let result = result
                .map(|done| done.response)
                .map_err(RaftError::APIError);
            // Whoever has given up does not take it.
            let _ = answer.send(result);
        }
    }
}

enum Way {
    Now(CommandBytes, Place),
    Later(oneshot::Receiver<Answer>),
}

impl RaftHandle {
    /// Has a command appended, committed and applied, together with those that wait beside it.
    pub(crate) async fn append(&self, command: CommandBytes) -> Answer {
        match self.way(command) {
            Way::Now(command, _place) => {
                let done = self.inner.engine.client_write(command).await;
                done.map(|done| done.data)
            }
            Way::Later(answer) => answer
                .await
                .unwrap_or(Err(RaftError::Fatal(Fatal::Stopped))),
        }
    }

    fn way(&self, command: CommandBytes) -> Way {
        let inner = &*self.inner;
        let mut queue = inner.batches.queue();
        if queue.under_way < UNDER_WAY_MAX {
            queue.under_way += 1;
            let place = Place {
                engine: inner.engine.clone(),
                batches: Arc::clone(&inner.batches),
            };
            return Way::Now(command, place);
        }
        let (answer, result) = oneshot::channel();
        queue.waiting.push_back(Waiting { command, answer });
        Way::Later(result)
    }
}
