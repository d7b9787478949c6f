//! Proposals that come while others are under way go to the engine together.
//!
//! Each turn of the engine costs the same whether it carries one proposal or fifty: a write and a sync on every manager, a
//! message to each follower and its answer. Handing over each proposal as it comes makes many small turns, for none of
//! which the processor then has the time. So:
//! - a turn begins only after the tasks that are ready have run once: they may be about to propose, too;
//! - at most [`UNDER_WAY_MAX`] turns are under way, and what comes meanwhile waits for the next;
//! - beside another turn one goes only when it carries as much. Else it waits for the other's end: turns that are small would
//!   stay small for ever, because those who are answered together propose again together.
//!
//! That costs nobody anything: a follower takes one message after the other anyway. A proposal that is alone goes at once.

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
    /// Turns under way, the one that gathers included.
    under_way: usize,
    /// Commands in them.
    commands: usize,
    /// One of them has not begun yet, and will take all that waits.
    gathers: bool,
}

impl Queue {
    /// Whether a turn for those who wait may be made ready.
    fn may_begin(&self) -> bool {
        let beside = self.under_way < UNDER_WAY_MAX && self.waiting.len() >= self.commands;
        !self.waiting.is_empty() && !self.gathers && (self.under_way == 0 || beside)
    }

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

/// One turn. Dropped, it makes the next one ready.
struct Turn {
    engine: Engine,
    batches: Arc<Batches>,
    /// None until it begins.
    commands: Option<usize>,
}

impl Turn {
    /// Makes a turn ready, if one may be made.
    fn make_ready(engine: &Engine, batches: &Arc<Batches>) {
        let mut queue = batches.queue();
        if !queue.may_begin() {
            return;
        }
        queue.under_way += 1;
        queue.gathers = true;
        drop(queue);
        let turn = Self {
            engine: engine.clone(),
            batches: Arc::clone(batches),
            commands: None,
        };
        crate::runtime::spawn(turn.run());
    }

    fn begin(&mut self) -> Vec<Waiting> {
        let mut queue = self.batches.queue();
        let waiting = queue.next();
        queue.gathers = false;
        queue.commands += waiting.len();
        self.commands = Some(waiting.len());
        waiting
    }

    async fn run(mut self) {
        tokio::task::yield_now().await;
        let (commands, answers): (Vec<_>, Vec<_>) = self
            .begin()
            .into_iter()
            .map(|waiting| (waiting.command, waiting.answer))
            .unzip();
        if commands.is_empty() {
            return;
        }
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

impl Drop for Turn {
    fn drop(&mut self) {
        let mut queue = self.batches.queue();
        queue.under_way -= 1;
        let Some(commands) = self.commands else {
            // It never began: this node ends, and another turn would not begin either. Those who wait learn it from their end
            // of the channel.
            queue.gathers = false;
            let ended = std::mem::take(&mut queue.waiting);
            drop(queue);
            drop(ended);
            return;
        };
        queue.commands -= commands;
        drop(queue);
        Self::make_ready(&self.engine, &self.batches);
    }
}

impl RaftHandle {
    /// Has a command appended, committed and applied, together with those that wait beside it.
    pub(crate) async fn append(&self, command: CommandBytes) -> Answer {
        let inner = &*self.inner;
        let (answer, result) = oneshot::channel();
        inner
            .batches
            .queue()
            .waiting
            .push_back(Waiting { command, answer });
        Turn::make_ready(&inner.engine, &inner.batches);
        result
            .await
            .unwrap_or(Err(RaftError::Fatal(Fatal::Stopped)))
    }
}
